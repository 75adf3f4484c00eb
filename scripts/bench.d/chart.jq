# Bars as an SVG of its own: no script, no font from elsewhere, colours for light and dark.
#   {title, panels: [{title, unit, less?, line?, most?, bars: [{name, value, ours, missed?}]}]}
include "stats";

def text: gsub("&"; "&amp;") | gsub("<"; "&lt;") | gsub(">"; "&gt;");
def at: . * 10 | round / 10;

# One panel: 430 wide, or the whole width where it is alone.
def panel($x; $y; $width; $indent):
  . as $panel
  | ([.bars[].value] | max) as $longest
  | ([$longest, .most // infinite] | min | if . <= 0 then 1 else . end) as $full
  | ($width - $indent - 96) as $room
  | "<text class=\"t\" x=\"\($x)\" y=\"\($y)\">\(.title | text)\(if .less then " <tspan class=\"u\">less is better</tspan>" else "" end)</text>",
    (if .line then ($x + $indent + .line / $full * $room | at) as $here
      | "<line class=\"l\" x1=\"\($here)\" x2=\"\($here)\" y1=\"\($y + 6)\" y2=\"\($y + 14 + (.bars | length) * 22)\"/>" else empty end),
    (.bars | to_entries[] | ($y + 12 + .key * 22) as $top | .value as $bar
      | ([([$bar.value, $full] | min) / $full * $room, 1] | max | at) as $long
      | "<text x=\"\($x + $indent - 6)\" y=\"\($top + 13)\" text-anchor=\"end\">\($bar.name | text)</text>"
        + "<rect class=\"\(if $bar.missed then "m" elif $bar.ours then "o" else "b" end)\" x=\"\($x + $indent)\" y=\"\($top)\" width=\"\($long)\" height=\"17\" rx=\"2\"/>"
        + "<text class=\"v\" x=\"\(($x + $indent + $long + 6) | at)\" y=\"\($top + 13)\">\(if $bar.value > $full then "> " else "" end)\([$bar.value, $full] | min | figures) \($panel.unit | text)</text>");

def chart:
  . as $all
  | (.panels | length) as $count
  | (if $count == 1 then 1 else 2 end) as $columns
  | ([.panels[].bars | length] | max * 22 + 44) as $height
  | (46 + ($count / $columns | ceil) * $height) as $tall
  | "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 880 \($tall)\" role=\"img\" aria-label=\"\(.title | text)\">",
    "<style>",
    "text{font:12.5px system-ui,-apple-system,\"Segoe UI\",sans-serif;fill:#1f2328}.h{font-size:16px;font-weight:600}.t{font-weight:600}.u{font-weight:400;fill:#656d76}",
    ".o{fill:#1a7f37}.b{fill:#8c959f}.m{fill:#bc4c00}.l{stroke:#1f2328;stroke-dasharray:4 3}.p{fill:#fff}",
    ".v{paint-order:stroke;stroke:#fff;stroke-width:5px}",
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.u{fill:#8d96a0}.o{fill:#3fb950}.b{fill:#6e7681}.m{fill:#f0883e}.l{stroke:#e6edf3}.p{fill:#0d1117}.v{stroke:#0d1117}}",
    "</style>",
    "<rect class=\"p\" width=\"880\" height=\"\($tall)\" rx=\"6\"/>",
    "<text class=\"h\" x=\"16\" y=\"26\">\(.title | text)</text>",
    (.panels | to_entries[] | .key as $n | .value
      | panel(16 + ($n % $columns) * 436; 56 + ($n / $columns | floor) * $height; (if $columns == 1 then 848 else 420 end);
          (if $columns == 1 then 330 else 120 end))),
    "</svg>";
