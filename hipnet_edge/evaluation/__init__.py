"""Site acceptance: whether a bundle holds on a hospital's own labelled cases, with intervals.

`hipnet-edge validate` reads and checks a table of studies (`table`), predicts each of them once
(`run`), works out the figures (`causes`, `risk`, `maps`, `subgroups` over a `Sample`) and writes a
report (`report`, `page`) that begins with a verdict against given criteria (`criteria`). The room
sits above the core and needs the extra `evaluate`; nothing of it is imported before it is used.
"""
