// The three experiments that need many requests at once, or requests without a cookie. Everything
// else on the page is plain forms. What the server answers is put in as text, never as HTML.

const byId = (id) => document.getElementById(id);

const get = async (path) => checked(await fetch(path)).json();

const post = async (path, fields = {}, options = {}) => {
  const body = new URLSearchParams(fields);
  return checked(await fetch(path, { method: "POST", body, ...options })).json();
};

const checked = (answer) => {
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer;
};

// Shorter names for people; the rest of a handle tells nobody more.
const short = (handle) => `${handle.slice(0, 8)}…`;

// Parts of a sentence; those in arrays are emphasized.
const say = (element, parts, isGood = true) => {
  const nodes = parts.map((part) => {
    if (!Array.isArray(part)) return part;
    const strong = document.createElement("strong");
    strong.append(...part);
    return strong;
  });
  element.replaceChildren(...nodes);
  element.classList.toggle("bad", !isGood);
};

// Take over what has changed from the page as it is now, without leaving it.
const refresh = async () => {
  const text = await checked(await fetch("/")).text();
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const old of document.querySelectorAll("[data-live]")) {
    // Only what is inside: a screen reader listens to the element itself.
    old.replaceChildren(...document.importNode(fresh.getElementById(old.id), true).childNodes);
  }
  showLocalTimes();
};

const showLocalTimes = () => {
  for (const time of document.querySelectorAll("time")) {
    time.textContent = new Date(time.dateTime).toLocaleString(undefined, {
      dateStyle: "medium",
      timeStyle: "medium",
    });
  }
};

// Run an experiment when its button is pressed; one at a time, and failures are said.
const experiment = (id, output, run) => {
  const button = byId(id);
  button.addEventListener("click", async () => {
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true"; // not `disabled`, which would take the focus away
    try {
      await run(byId(output));
      await refresh();
    } catch (error) {
      // What fetch throws by itself, it throws where there is no answer at all.
      const reason = error instanceof TypeError ? "the server does not answer" : error.message;
      say(byId(output), [`This could not be finished: ${reason}.`], false);
    } finally {
      button.ariaDisabled = "false";
    }
  });
};

// Have a session before many requests share it: two first visits at once would make two.
const begin = async () => {
  const { handle } = await post("/prepare");
  if ((await get("/state")).handle === handle) return handle;
  throw new Error("this browser does not keep the cookie of this page");
};

experiment("fire", "verdict", async (verdict) => {
  const cells = [...byId("cells").children];
  for (const cell of cells) cell.className = "";
  await begin();
  const begun = performance.now();
  let answers = 0;
  const fire = async (path, number, mark) => {
    await post(path, { number });
    cells[number].classList.add(mark);
    answers += 1;
    if (answers % 25 === 0) say(verdict, [`${answers} of ${2 * cells.length} answers …`]);
  };
  await Promise.all(
    cells.flatMap((_, number) => [
      fire("/burst/increment", number, "counted"),
      fire("/burst/mark", number, "marked"),
    ]),
  );
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  const { burst, marks } = await get("/state");
  const kept = new Set(marks);
  cells.forEach((cell, number) => {
    // Whose increment was lost nobody can tell: the last cells stand for them.
    cell.classList.add(kept.has(number) && number < burst ? "kept" : "lost");
  });
  const isAllThere = burst === cells.length && kept.size === cells.length;
  const found =
    ` The store has ${burst} of ${cells.length} counts and ${kept.size} of ${cells.length} keys,` +
    ` after ${seconds} s.`;
  say(verdict, [[isAllThere ? "Nothing lost." : "Something was lost!"], found], isAllThere);
});

// A request sees what another one has written while that is still at work.
const hasBegun = async () => {
  for (let tries = 0; tries < 50; tries += 1) {
    if ((await get("/state")).slow === "begun") return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("the slow request did not begin");
};

experiment("race", "events", async (events) => {
  events.replaceChildren();
  const tell = (...parts) => {
    const item = document.createElement("p");
    say(item, parts);
    events.append(item);
  };
  const handle = await begin();
  const slow = post("/slow");
  await Promise.race([slow, hasBegun()]);
  tell(`A slow request is at work in session ${short(handle)}`);
  await fetch("/logout", { method: "POST", redirect: "manual" });
  tell(`Logged out: ${short(handle)} is destroyed`);
  const { outcome } = await slow;
  tell(`The slow request wrote, and was told: ${outcome === "void" ? "SessionGone" : outcome}`);
  const now = await get("/state");
  const isDead = outcome === "void" && now.handle !== handle && now.slow === null;
  tell([isDead ? "It stayed dead." : "It came back!"], " Your new session has nothing of it.");
});

experiment("ask", "answer", async (answer) => {
  const { handle, things } = await post("/stranger", {}, { credentials: "omit" });
  say(answer, [
    "The stranger was given session ", [short(handle)], ` with ${things} things in the cart.`,
    " Yours is as it was.",
  ]);
});

showLocalTimes();
for (const button of document.querySelectorAll("[data-script]")) button.hidden = false;
