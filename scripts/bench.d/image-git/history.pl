# history.pl COMMITS BYTES SEED REF [PARENT]: a history for git fast-import. Every commit changes one file of a thousand.
#
# What compresses like source does not say how large a pack becomes, so half of a file are words and half are random
# digits, in short runs: a pack is a little larger than the half of BYTES.
use strict;
use warnings;

my ($commits, $bytes, $seed, $ref, $parent) = @ARGV;
srand $seed;
my @words = map { my $length = 3 + int rand 8; join '', map { chr 97 + int rand 26 } 1 .. $length } 1 .. 4000;
open my $random, '<:raw', '/dev/urandom' or die "urandom: $!";
# What goes on from a parent is later than it, as history is; else every walk of git's has to go back by days.
my $time = (defined $parent ? 1_750_000_000 : 1_700_000_000) + $seed % 1000;
for my $number (1 .. $commits) {
    my $text = '';
    while (length $text < $bytes) {
        read $random, my $few, 18;
        $text .= join(' ', map { $words[rand @words] } 1 .. 6) . ' = ' . join(':', map { unpack 'H*', $_ } unpack '(a2)*', $few) . "\n";
    }
    my $file = int rand 1000;
    my $path = sprintf 'src/d%02d/f%03d.txt', $file % 40, $file;
    my $message = "change $number of $path";
    printf "commit %s\ncommitter Bench <bench\@example.com> %d +0000\ndata %d\n%s\n", $ref, $time + $number, length $message, $message;
    print "from $parent\n" if $number == 1 && defined $parent;
    printf "M 100644 inline %s\ndata %d\n%s\n", $path, length $text, $text;
}
print "done\n";
