"""The demo that `minisession demo` serves: one page on which sessions are seen at work.

It is an application like anybody's and uses the public names of the package alone, so it is also
something to learn from. Read `app.py`; the rest is what a framework would do for you.

    app.py    what happens with the session: every handler
    page.py   the page as HTML
    web.py    forms in, responses out; has never heard of sessions
    static/   the page's template, style and script
"""

from .app import create_app

__all__ = ["create_app"]
