# Medians, and tables that read well as text and as Markdown.

def median:
  map(select(. != null)) | sort
  | if length == 0 then null
    elif length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2
    end;

# How far apart rounds are: (max - min) / median.
def spread:
  map(select(. != null))
  | if length < 2 or median == 0 then null else (max - min) / median end;

def over($b): if . == null or $b == null or $b == 0 then null else . / $b end;

def digits($n):
  . * pow(10; $n) | round
  | if $n == 0 then tostring
    else
      (if . < 0 then "-" else "" end) + (fabs | tostring
        | if length <= $n then "0" * ($n + 1 - length) + . else . end
        | .[:length - $n] + "." + .[length - $n:])
    end;

# Three figures, and thousands apart: more is noise.
def figures:
  if . == null then "–"
  elif fabs >= 1000 then
    digits(0) | if length > 3 then .[:length - 3] + "," + .[length - 3:] else . end
  elif fabs >= 100 then digits(0)
  elif fabs >= 10 then digits(1)
  elif fabs >= 1 then digits(2)
  else digits(3)
  end;

def pad($n; $left): if $left then . + " " * ($n - length) else " " * ($n - length) + . end;

# An array of rows of texts, the first of them the heads. The first column stands left, the others right.
def table:
  . as $rows
  | [range(0; $rows[0] | length) as $at | $rows | map(.[$at] | length) | max] as $widths
  | ($rows | map(. as $row | "| " + ([range(0; length) | . as $at | $row[$at] | pad($widths[$at]; $at == 0)] | join(" | ")) + " |"))
  | .[0],
    "|" + ([range(0; $widths | length) | if . == 0 then "-" * ($widths[.] + 2) else "-" * ($widths[.] + 1) + ":" end] | join("|")) + "|",
    .[1:][];
