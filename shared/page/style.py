"""The page's style: quiet, in the reader's own light or dark, from 320 pixels on."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f6f3; --surface: #ffffff; --ink: #1d1f22; --quiet: #5c6169; --line: #e3e3dd; --code: #f1f1ec;
  --accent: #2a5bd0; --ok: #1a7f4b; --warn: #8f5600; --fail: #bb2119; --unknown: #5c6169;
  --warn-ground: #fdf6e7; --fail-ground: #fdf0ee; --area: #2a5bd018;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #121417; --surface: #1a1d21; --ink: #e7e9eb; --quiet: #a0a7af; --line: #2d3238; --code: #14171a;
    --accent: #8ab0ff; --ok: #4fc98d; --warn: #f0b552; --fail: #ff8a80; --unknown: #a0a7af;
    --warn-ground: #241f14; --fail-ground: #2a1917; --area: #8ab0ff1c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", "Open Sans", sans-serif; overflow-wrap: anywhere;
}
h1, h2, h3, p, ul, figure, fieldset, pre { margin: 0; padding: 0; }
h1 { font-size: clamp(1.5rem, 1.1rem + 2vw, 2.1rem); line-height: 1.2; font-weight: 650; letter-spacing: -0.015em; }
h2 { font-size: 1.15rem; font-weight: 650; margin-bottom: 0.75rem; }
h3 { font-size: 1rem; font-weight: 650; }
ul { list-style: none; }
fieldset { border: 0; }
a { color: var(--accent); }
code, pre { font: 0.875em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.hint, .none, .limits { color: var(--quiet); font-size: 0.875rem; }
.unseen {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap;
}
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
main:focus, main:focus-visible { outline: none; }
.skip { position: absolute; left: 1rem; top: -4rem; padding: 0.5rem 1rem; background: var(--surface); z-index: 2; }
.skip:focus { top: 0.5rem; }
button {
  font: inherit; font-size: 0.875rem; color: var(--ink); background: var(--surface); border: 1px solid var(--line);
  border-radius: 8px; padding: 0.4rem 0.8rem; min-height: 2.25rem; cursor: pointer;
}
button:hover { border-color: var(--quiet); }
#banner {
  position: sticky; top: 0; z-index: 1; padding: 0.6rem clamp(1rem, 4vw, 2rem);
  background: var(--fail-ground); color: var(--fail); border-bottom: 1px solid currentColor;
}
.lost main { opacity: 0.65; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding-inline: clamp(1rem, 4vw, 2rem); }
header { display: flex; align-items: center; gap: 0.75rem; padding-block: 1rem; }
header button { margin-left: auto; }
.brand { font-weight: 650; }
.environment {
  font-size: 0.8125rem; color: var(--quiet); border: 1px solid var(--line); border-radius: 99px; padding: 0 0.6rem;
}
main {
  display: grid; grid-template-columns: minmax(0, 1fr); gap: clamp(1.75rem, 4vw, 2.75rem);
  padding-block: 0.5rem 3rem;
}
footer { padding-block: 1.5rem 2.5rem; color: var(--quiet); font-size: 0.8125rem; border-top: 1px solid var(--line); }

.icon {
  width: 1.05em; height: 1.05em; flex: none; fill: none; stroke: currentColor; stroke-width: 1.6;
  stroke-linecap: round; stroke-linejoin: round; vertical-align: -0.15em;
}
.ok { --tone: var(--ok); }
.warn { --tone: var(--warn); }
.fail { --tone: var(--fail); }
.unknown { --tone: var(--unknown); }
.icon { color: var(--tone); }
.badge {
  display: inline-flex; align-items: center; gap: 0.35rem; color: var(--tone); font-size: 0.875rem;
  font-weight: 600;
}

.verdict {
  display: flex; gap: clamp(0.9rem, 3vw, 1.25rem); align-items: flex-start; padding-top: clamp(0.5rem, 3vw, 1.5rem);
}
.verdict > .icon {
  width: clamp(2.4rem, 6vw, 3rem); height: clamp(2.4rem, 6vw, 3rem); stroke-width: 1.1; margin-top: 0.1em;
}
.verdict p { margin-top: 0.35rem; }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.75rem, 1fr)); gap: 0.75rem; }
.tiles a {
  display: flex; flex-direction: column; height: 100%; padding: 0.75rem 0.9rem; color: inherit; text-decoration: none;
  background: var(--surface); border: 1px solid var(--line); border-radius: 12px;
}
.tiles a:hover { border-color: var(--quiet); }
.name { color: var(--quiet); font-size: 0.875rem; }
.now { font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; letter-spacing: -0.01em; }
.tiles .now { margin-top: auto; }
.tiles .icon { margin-left: 0.4rem; width: 0.85em; height: 0.85em; vertical-align: -0.05em; }

.wrong {
  background: var(--surface); border: 1px solid var(--line); border-left: 4px solid var(--tone); border-radius: 12px;
  padding: 1rem clamp(0.9rem, 3vw, 1.25rem); display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.6rem;
}
.wrong + .wrong { margin-top: 0.75rem; }
.wrong.warn { background: var(--warn-ground); } .wrong.fail { background: var(--fail-ground); }
.wrong h2 { margin: 0; }
.wrong h3 { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0.1rem 0.75rem; }
.wrong h3 .badge { align-self: center; }
.advice li { padding-left: 1.1rem; position: relative; }
.advice li + li { margin-top: 0.3rem; }
.advice li::before { content: "→"; position: absolute; left: -0.1rem; color: var(--quiet); }
.more { font-size: 0.875rem; }
.sql { display: flex; align-items: flex-start; gap: 0.5rem; margin-top: 0.35rem; }
.sql pre, main > pre { flex: 1; min-width: 0; }
pre {
  background: var(--code); border: 1px solid var(--line); border-radius: 8px; padding: 0.4rem 0.7rem;
  white-space: pre-wrap;
}

.choices { display: inline-flex; gap: 0.25rem; margin-bottom: 1rem; border: 1px solid var(--line);
  border-radius: 10px;
  padding: 0.2rem; background: var(--surface); }
.choices input { position: absolute; opacity: 0; }
.choices label {
  padding: 0.25rem 0.8rem; border-radius: 7px; font-size: 0.875rem; cursor: pointer; color: var(--quiet);
}
.choices input:checked + label { background: var(--ink); color: var(--surface); }
.choices input:focus-visible + label { outline: 3px solid var(--accent); outline-offset: 2px; }
#history:has(#range-month:checked) > .day, #history:not(:has(#range-month:checked)) > .month { display: none; }
.span { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15.5rem), 1fr)); gap: 0.75rem; }
.span > .wide, .span > details { grid-column: 1 / -1; }
figure {
  background: var(--surface); border: 1px solid var(--line); border-radius: 12px; padding: 0.8rem 0.9rem 0.7rem;
  display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 0.35rem 0.6rem; align-content: start;
}
figcaption {
  grid-column: 1 / -1; display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 0.6rem; min-height: 2rem;
}
.reading {
  margin-left: auto; font-size: 0.8125rem; color: var(--quiet); font-variant-numeric: tabular-nums;
  visibility: hidden;
}
.read .reading { visibility: visible; }
.y, .x {
  color: var(--quiet); font-size: 0.75rem; line-height: 1; font-variant-numeric: tabular-nums; display: flex;
  justify-content: space-between;
}
.y { flex-direction: column; text-align: right; margin-block: -0.35rem; }
.x { white-space: nowrap; }
.x, .limits { grid-column: 2; }
.wide .plot, .wide .x { grid-column: 1 / -1; }
.plot { position: relative; }
.plot svg { display: block; width: 100%; height: 7.5rem; overflow: visible; }
.plot .strip { height: 1.6rem; }
.grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.line {
  fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round;
  vector-effect: non-scaling-stroke;
}
.area { fill: var(--area); }
line.limit { stroke: var(--tone); stroke-width: 1; stroke-dasharray: 5 4; vector-effect: non-scaling-stroke; }
.strip rect { fill: var(--tone); }
.at { display: none; position: absolute; top: 0; bottom: 0; width: 1px; background: var(--quiet); }
.read .at { display: block; }
.limits { display: flex; gap: 0.2rem 1rem; flex-wrap: wrap; font-size: 0.75rem; }
.limits .limit { color: var(--tone); }
.limits .limit::before { content: "┄ "; }

.box {
  overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; background: var(--surface);
  margin-top: 0.5rem;
}
table {
  border-collapse: collapse; width: 100%; font-size: 0.875rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal;
}
caption { text-align: left; padding: 0.4rem 0.7rem; color: var(--quiet); }
th, td {
  text-align: left; padding: 0.35rem 0.7rem; vertical-align: top; white-space: nowrap;
  border-top: 1px solid var(--line);
}
thead th { color: var(--quiet); font-weight: 500; border-top: 0; }
tbody th { font-weight: 500; }
td.number { text-align: right; }
td.query {
  white-space: normal; min-width: 22rem;
  font: 0.8125rem/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}

#sessions h3 { margin-top: 1.1rem; margin-bottom: 0.35rem; }
.tree .tree { margin-left: 0.55rem; padding-left: 0.9rem; border-left: 2px solid var(--line); }
.tree li { margin-top: 0.5rem; }
.session { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: 0.55rem 0.8rem; }
.session .facts { display: flex; flex-wrap: wrap; gap: 0 0.9rem; font-size: 0.875rem; color: var(--quiet); }
.session b { color: var(--ink); font-variant-numeric: tabular-nums; }
.session code { display: block; margin-top: 0.2rem; }
.session bdi { min-width: 0; }

.topic + .topic { margin-top: 1.5rem; }
.topic h3 { margin-bottom: 0.4rem; color: var(--quiet); font-weight: 500; font-size: 0.875rem; }
.check { background: var(--surface); border: 1px solid var(--line); margin-top: -1px; }
.check:first-of-type { border-radius: 12px 12px 0 0; } .check:last-of-type { border-radius: 0 0 12px 12px; }
.check:first-of-type:last-of-type { border-radius: 12px; }
summary { cursor: pointer; }
.check summary { display: grid; grid-template-columns: 6.5rem minmax(0, 1fr) auto; gap: 0 0.75rem;
  align-items: baseline;
  padding: 0.45rem 0.9rem; list-style: none; }
.check summary::-webkit-details-marker { display: none; }
.check summary:hover { background: var(--code); border-radius: inherit; }
.check .value { font-variant-numeric: tabular-nums; color: var(--quiet); text-align: right; }
.check .value::after { content: "+"; display: inline-block; width: 1.4em; text-align: right; color: var(--quiet); }
.check[open] .value::after { content: "–"; }
.inside { padding: 0.2rem 0.9rem 1rem; display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.5rem; }

.door { max-width: 28rem; padding-top: clamp(2rem, 12vh, 8rem); gap: 1rem; }
.door .brand { color: var(--quiet); }
form { display: grid; gap: 0.5rem; }
form label { font-weight: 600; }
input[type="password"] {
  font: inherit; width: 100%; padding: 0.6rem 0.75rem; color: var(--ink); background: var(--surface);
  border: 1px solid var(--quiet); border-radius: 8px;
}
input[aria-invalid="true"] { border-color: var(--fail); }
form button {
  justify-self: start; background: var(--ink); color: var(--surface); border-color: var(--ink);
  padding-inline: 1.2rem;
}
button:disabled { opacity: 0.6; cursor: default; }
#trouble { color: var(--fail); font-weight: 600; }
#trouble:empty { display: none; }

@media (max-width: 34rem) {
  .check summary { grid-template-columns: auto minmax(0, 1fr) auto; }
  .badge.ok .word { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .sql { flex-direction: column; align-items: stretch; }
  .sql button { align-self: flex-start; }
}
@media (prefers-reduced-motion: no-preference) {
  html { scroll-behavior: smooth; }
  .lost main { transition: opacity 0.3s; }
}
@media (forced-colors: active) { .line, .strip rect { forced-color-adjust: none; } }
@media print { header button, .sql button, .choices, #banner { display: none; } }
"""
