"""FastAPI: sessions in `async def` and plain `def` endpoints, and the framework's own access."""

from fastapi import FastAPI, Request

from minisession import SessionConfig, SessionMiddleware, session

app = FastAPI()
app.add_middleware(
    SessionMiddleware,
    store="sqlite:///sessions.db",
    config=SessionConfig(cache_expire=60),  # minutes
)


@app.post("/cart/{item}")
async def add(item: str) -> list[str]:
    """Put an item into the cart of whoever asks."""
    session.setdefault("cart", []).append(item)
    return list(session["cart"])


@app.get("/cart")
def show(request: Request) -> list[str]:
    """Show the cart. Runs in a worker thread, and sees the same session there."""
    return list(request.session.get("cart", []))


@app.post("/visits")
async def count_visit() -> int:
    """Count without losing a visit, however many requests arrive at once."""
    visits: int = await session.update("visits", lambda n: n + 1, default=0)
    return visits
