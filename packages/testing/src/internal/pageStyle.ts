/**
 * The style of the page.
 *
 * Invariants
 * 1. Readable in light and dark, and without colour: what is lost also has a mark.
 */
export const style = `
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #e3e5e8; --page: #f6f7f9; --card: #fff;
  --bad: #d92d20; --bad-soft: #fdeceb; --good: #18794e; --held: #5b8def; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #a0a5ad; --line: #2e3135; --page: #111214;
  --card: #191a1d; --bad: #ff6b5e; --bad-soft: #3a1715; --good: #4cc38a; --held: #5b8def; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 14px/1.5 system-ui, sans-serif }
header, main { max-width: 1280px; margin: 0 auto; padding: 24px }
header { padding-bottom: 0 } header p { color: var(--soft); max-width: 76ch; margin: 4px 0 0 }
h1 { font-size: 22px; margin: 0 } h2 { font-size: 18px; margin: 24px 0 4px; display: flex; gap: 12px; align-items: center }
h3 { font-size: 15px; margin: 0; display: flex; gap: 8px } h3 em { font-style: normal; color: var(--soft); font-weight: 400 }
.badge { font-size: 12px; font-weight: 600; border-radius: 99px; padding: 2px 10px; color: #fff }
.badge.bad { background: var(--bad) } .badge.good { background: var(--good) }
.summary, .where { color: var(--soft); margin: 0 0 10px } .message { margin: 4px 0; font-weight: 600; color: var(--bad) }
.strip { display: flex; align-items: center; gap: 12px; margin: 3px 0 }
.strip label { width: 84px; color: var(--soft); font-size: 12px; text-align: right; flex: none }
.cells { display: flex; flex: 1; gap: 1px; height: 16px }
.cells b { flex: 1; background: var(--line); border-radius: 2px; min-width: 1px } .cells b.broken { background: var(--bad) }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; margin: 16px 0 }
pre { background: var(--page); border-radius: 6px; padding: 8px 12px; margin: 0 0 12px; overflow-x: auto; font-size: 12.5px }
.timeline { border-top: 1px solid var(--line); overflow-x: auto }
.rows { position: relative; min-width: 880px } svg.lanes { position: absolute; left: 52px; top: 0; pointer-events: none }
.row { display: flex; align-items: center; height: 26px; white-space: nowrap; border-radius: 4px }
.row.head { height: 70px; color: var(--soft); font-size: 12px; align-items: flex-end; padding-bottom: 4px; min-width: 880px }
.row.head .gap { height: 64px } svg.names { overflow: visible; display: block; font-size: 11px }
.row:not(.head):hover { background: var(--page) } .gap { flex: none }
.step { width: 44px; margin-right: 8px; flex: none; text-align: right; color: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums }
.what { width: 250px; flex: none; overflow: hidden; text-overflow: ellipsis; padding-right: 8px }
.code { flex: 1; min-width: 160px; overflow: hidden; text-overflow: ellipsis; font: 12px ui-monospace, monospace; padding-right: 8px }
.source { width: 270px; flex: none; overflow: hidden; text-overflow: ellipsis; color: var(--soft); font: 12px ui-monospace, monospace;
  direction: rtl; text-align: left }
.head .code, .head .source { font: inherit; direction: ltr }
.masked { color: var(--soft); font-size: 11px; margin-left: 8px }
.row.cancel, .row.cancel:hover { background: var(--bad-soft) } .row.cancel .what { color: var(--bad); font-weight: 700 }
.row.probe .what { font-weight: 600 } .row.fork .what, .row.end .what { color: var(--soft) } .row.exit .what { width: auto; font-weight: 600 }
.row.hidden button { border: 0; background: none; color: var(--soft); font: inherit; cursor: pointer; padding: 0; text-decoration: underline dotted }
.cancel-mark { fill: var(--bad) } .cancel-cross { fill: #fff; font-size: 11px; font-weight: 700 }
.held { fill: var(--held); opacity: .75 } .held.lost { fill: var(--bad); opacity: 1 } text.lost { fill: var(--bad) }
.probe-name { fill: var(--soft) }
.verdict { background: var(--bad-soft); color: var(--bad); font-weight: 600; border-radius: 6px; padding: 6px 12px; margin-top: 8px }
`
