"""How the page looks, on screens and phones, by day and by night. It is whole without."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;
--ink:#1b2430;--dim:#5b6775;--paper:#fff;--soft:#f3f5f8;--edge:#d5dbe3;
--good:#17713f;--busy:#8a5a00;--bad:#b3261e;--one:#1f5fbf;--two:#b4560b}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1;--dim:#9aa7b5;--paper:#12171e;--soft:#1b222c;
--edge:#333d4a;--good:#5fd08f;--busy:#f0b95a;--bad:#ff8a80;--one:#7db3ff;--two:#ffab66}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:0 1rem 2rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
header{display:flex;flex-wrap:wrap;align-items:baseline;justify-content:space-between;gap:0 1rem}
h1{font-size:1.4rem;margin:1rem 0 .5rem}
h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
p{margin:.4rem 0}
a{color:var(--one)}
.verdict{font-weight:700;border:2px solid;border-radius:1rem;padding:0 .8rem;margin:0}
.good{color:var(--good)}.busy{color:var(--busy)}.bad{color:var(--bad)}
.flow{list-style:none;display:flex;align-items:stretch;gap:.5rem;padding:0;margin:.5rem 0}
.flow li{padding:.5rem .7rem;min-width:0}
.flow span{display:block;font-size:.8rem;overflow-wrap:anywhere}
.node{background:var(--soft);border:1px solid var(--edge);border-radius:.5rem;flex:0 1 10rem}
.node span,.arrow span{color:var(--dim)}
.arrow{flex:1 1 12rem;text-align:center}
.flow .lag{color:inherit;font-size:1.15rem;font-weight:700}
svg{display:block;width:100%;height:auto;background:var(--soft);border:1px solid var(--edge);
border-radius:.5rem}
svg polyline{fill:none;stroke-width:2;stroke-linejoin:round;vector-effect:non-scaling-stroke}
svg .line0{stroke:var(--one)}svg .line1{stroke:var(--two)}
svg .grid{stroke:var(--edge);stroke-width:1}svg text{fill:var(--dim);font-size:10px}
.key0{color:var(--one)}.key1{color:var(--two)}
.small,footer{font-size:.85rem;color:var(--dim)}
ul,dl{margin:.4rem 0;padding-left:1.2rem}dl{padding-left:0}dt{font-weight:600}dd{margin:0 0 .8rem}
progress{width:100%;max-width:24rem;display:block;accent-color:var(--one)}
form{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:center;margin:.5rem 0}
input,select,button{font:inherit;padding:.2rem .5rem;color:inherit;background:var(--soft);
border:1px solid var(--edge);border-radius:.4rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--edge)}
.name{font-weight:500;overflow-wrap:anywhere}
thead th{white-space:nowrap;background:var(--soft)}
.number{text-align:right;font-variant-numeric:tabular-nums}
code{font-size:.85em}
@media(max-width:40rem){.flow{flex-direction:column;gap:.2rem}.node,.arrow{flex:none}
.arrow{text-align:left;border-left:3px solid;margin-left:1rem;padding:.3rem .8rem}
.wide{display:none}svg text{font-size:22px}}
"""
