# Draws what each sidecar took over time: one line a process, memory above, file descriptors below.

def colour: {egress: "#1f6feb", supervise: "#c2570c", "git-gate": "#15803d"}[.] // "#666666";
def rounded: . * 10 | round / 10;

# The next round number that is not smaller.
def ceiling:
  . as $value | pow(10; ($value | log10 | floor)) as $power
  | [1, 2, 3, 4, 5, 6, 8, 10] | map(. * $power) | map(select(. >= $value)) | first;

def panel($top; $title; $most_minutes; f):
  750 as $width | 200 as $height | 60 as $left
  | (map(.[] | f) | max * 1.05 | ceiling) as $most
  | "<text x='\($left)' y='\($top - 10)' font-weight='bold'>\($title)</text>",
    (range(0; 5) | (. / 4) as $part | ($top + $height * (1 - $part)) as $y
      | "<line x1='\($left)' x2='\($left + $width)' y1='\($y)' y2='\($y)' stroke='#dddddd'/>",
        "<text x='\($left - 8)' y='\($y + 4)' text-anchor='end'>\($most * $part | rounded)</text>"),
    (range(0; 7) | (. / 6) as $part | ($left + $width * $part) as $x
      | "<text x='\($x)' y='\($top + $height + 18)' text-anchor='middle'>\($most_minutes * $part | rounded)</text>"),
    (.[] | "<polyline fill='none' stroke='\(.[0].sidecar | colour)' stroke-opacity='0.65' stroke-width='1.2' points='" +
      (map("\($left + $width * (.at / 60) / $most_minutes | rounded),\($top + $height * (1 - f / $most) | rounded)") | join(" ")) + "'/>");

map(select(.sidecar)) | group_by([.bottle, .sidecar])
| (map(.[].at) | max / 60) as $minutes
| (map(.[0].sidecar) | unique) as $kinds
| "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 840 590' font-family='sans-serif' font-size='12'>",
  "<rect width='840' height='590' fill='#ffffff'/>",
  ($kinds | to_entries[] | (60 + .key * 130) as $x
    | "<rect x='\($x)' y='14' width='18' height='4' fill='\(.value | colour)'/>",
      "<text x='\($x + 24)' y='20'>\(.value)</text>"),
  panel(65; "memory of its own, MiB"; $minutes; .kib / 1024),
  panel(335; "open file descriptors"; $minutes; .fds),
  "<text x='435' y='578' text-anchor='middle'>minutes</text>",
  "</svg>"
