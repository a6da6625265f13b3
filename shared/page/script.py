"""The page's script: looks again, puts what is new in place of what is old, and says when it cannot."""

SCRIPT = r"""
(() => {
  "use strict";
  const EVERY = 10000, PATIENCE = 30000;  // milliseconds
  const $ = (id) => document.getElementById(id);
  const page = $("page"), banner = $("banner");
  const now = () => formats.second.format(new Date());
  let timer, lostAt, isLooking = false;

  // -- what is new, in place of what is old: what is the same stays, and with it focus, scroll and what is open ------
  function morph(old, fresh) {
    for (const { name, value } of [...fresh.attributes]) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    const wanted = new Set([...fresh.children].map((child) => child.id));
    const known = new Map();
    for (const child of [...old.children]) {
      if (!child.id) continue;
      if (wanted.has(child.id)) known.set(child.id, child); else child.remove();
    }
    let at = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      let same = child.id ? known.get(child.id) : at && !at.id ? at : null;
      if (same && same.nodeName !== child.nodeName) same = null;
      if (!same) { old.insertBefore(child, at); continue; }
      if (same === at) at = at.nextSibling; else old.insertBefore(same, at);
      if (same.nodeType !== Node.ELEMENT_NODE) {
        if (same.nodeValue !== child.nodeValue) same.nodeValue = child.nodeValue;
      } else morph(same, child);
    }
    while (at) { const over = at; at = at.nextSibling; over.remove(); }
  }

  function put(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("page");
    if (!fresh) throw new Error("the answer is not the page");
    localize(fresh);
    const hadFocus = document.activeElement !== document.body;
    morph(page, fresh);
    dress();
    if (hadFocus && document.activeElement === document.body) $("main").focus({ preventScroll: true });
  }

  function dress() {
    document.title = page.dataset.title;
    if ($("icon").href !== page.dataset.icon) $("icon").href = page.dataset.icon;
  }

  const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }, date = { month: "short", day: "numeric" };
  const formats = Object.fromEntries(Object.entries({
    clock, date, moment: { ...date, ...clock }, second: { ...clock, second: "2-digit" },
    day: { year: "numeric", ...date, ...clock },
  }).map(([name, options]) => [name, new Intl.DateTimeFormat(undefined, options)]));
  function localize(root) {
    for (const time of root.querySelectorAll("time[data-as]")) {
      time.textContent = formats[time.dataset.as].format(new Date(time.dateTime));
    }
  }

  // -- looking again -------------------------------------------------------------------------------------------------
  const isSignedIn = () => "signedIn" in page.dataset;

  async function look() {
    if (isLooking) return;
    isLooking = true;
    clearTimeout(timer);
    const wasSignedIn = isSignedIn();
    try {
      const response = await fetch("?content=1", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
      if (response.status !== 200 && response.status !== 401) throw new Error(`it answers ${response.status}`);
      put(await response.text());
      found();
      if (wasSignedIn && !isSignedIn()) {
        $("trouble").textContent = `The session ended at ${now()}. Sign in again.`;
        $("token").focus();
      }
    } catch (error) {
      lost(error);
    }
    isLooking = false;
    plan();
  }

  function plan() {
    clearTimeout(timer);
    if ((isSignedIn() || lostAt) && !document.hidden) timer = setTimeout(look, EVERY);
  }

  function lost(error) {
    const why = error instanceof TypeError ? "no answer"
      : error.name === "TimeoutError" ? "no answer in time" : error.message;
    lostAt ??= now();
    const text = `No contact since ${lostAt} (${why}). What you see is as old as that; it keeps trying.`;
    if (banner.textContent !== text) banner.textContent = text;
    banner.hidden = false;
    document.body.classList.add("lost");
  }

  function found() {
    lostAt = undefined;
    banner.hidden = true;
    banner.textContent = "";
    document.body.classList.remove("lost");
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer); else if (isSignedIn() || lostAt) look();
  });
  addEventListener("online", () => { if (isSignedIn()) look(); });

  // -- signing in and out --------------------------------------------------------------------------------------------
  async function signIn(form) {
    const token = $("token"), trouble = $("trouble"), button = form.querySelector("button");
    trouble.textContent = "";
    button.disabled = true;
    try {
      const body = JSON.stringify({ token: token.value });
      const response = await fetch("", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      if (response.status === 204) {
        token.value = "";
        await look();
        $("main").focus();
        return;
      }
      const minutes = Math.ceil((response.headers.get("Retry-After") ?? 60) / 60);
      trouble.textContent = response.status === 401 ? "That is not the token."
        : response.status === 429 ? `Too many attempts. Try again in ${minutes} minutes.`
        : `Signing in did not work: the server answers ${response.status}.`;
    } catch {
      trouble.textContent = "The server does not answer. Try again.";
    }
    button.disabled = false;
    token.setAttribute("aria-invalid", "true");
    token.focus();
    token.select();
  }

  document.addEventListener("submit", (event) => {
    event.preventDefault();
    signIn(event.target);
  });

  async function signOut() {
    try {
      await fetch("", { method: "DELETE" });
    } catch (error) {
      lost(error);
      return;
    }
    location.reload();
  }

  // -- small things --------------------------------------------------------------------------------------------------
  async function copy(button) {
    const code = $(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {  // without HTTPS there is no clipboard
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
  }

  function reveal(hash) {
    const target = hash.length > 1 && $(decodeURIComponent(hash.slice(1)));
    if (target && target.nodeName === "DETAILS") target.open = true;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button"), link = event.target.closest("a[href^='#']");
    if (button?.dataset.copy) copy(button);
    if (button?.id === "sign-out") signOut();
    if (link) reveal(link.getAttribute("href"));
  });

  // The pointer over a plot reads the numbers of that time from the table below the plots.
  const columns = { verdict: 1, connections: 2, pool: 3, size: 4 };
  document.addEventListener("pointermove", (event) => {
    const plot = event.target.closest?.(".plot");
    for (const figure of document.querySelectorAll("figure.read")) {
      if (!figure.contains(plot)) figure.classList.remove("read");
    }
    if (!plot) return;
    const figure = plot.closest("figure"), box = plot.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width;
    let nearest;
    for (const row of figure.parentElement.querySelectorAll("tr[data-x]")) {
      const distance = Math.abs(row.dataset.x - at);
      if (!nearest || distance < nearest.distance) nearest = { distance, row };
    }
    if (!nearest || nearest.distance > 0.03) { figure.classList.remove("read"); return; }
    const { row } = nearest, column = columns[figure.id.split("-")[1]];
    figure.classList.add("read");
    plot.querySelector(".at").style.left = `${row.dataset.x * 100}%`;
    figure.querySelector(".reading").textContent = `${row.cells[column].textContent} · ${row.cells[0].textContent}`;
  });

  localize(page);
  dress();
  reveal(location.hash);
  if ("look" in page.dataset) look(); else plan();
})();
"""
