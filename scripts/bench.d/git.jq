# Medians, ratios and verdicts from single times. Input: an array of what git.sh noted.
include "stats";

def s($what; $way): map(select(.what == $what and .way == $way) | .us / 1e6);

(s("clone"; "direct") | median) as $clone
| (s("push"; "direct") | median) as $push
| (s("scan"; "gate") | median) as $scan
| { machine: $machine[0], $quick, $rounds, $commits, $pushed, $size,
    first: (s("first"; "gate") | median), scan: $scan,
    spread: ([s("clone"; "direct"), s("clone"; "gate"), s("push"; "direct"), s("push"; "gate")] | map(spread) | median),
    rows: [
      ({ name: "clone", direct: $clone, gate: (s("clone"; "gate") | median), most: 1.3 } | .without = .gate),
      ({ name: "push of \($pushed) commits", direct: $push, gate: (s("push"; "gate") | median), most: 1.5 }
        | .without = ([.gate - $scan, 0] | max)) ] }
| .rows |= map(.direct as $direct
    | .ratio = (.gate | over($direct)) | .ratio_without = (.without | over($direct)) | .reached = .ratio_without <= .most)
