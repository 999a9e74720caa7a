"""Every limit of the contract, each with its reason. The comments of the .proto files state the same numbers.

Characters are Unicode code points, bytes are encoded bytes; MIN and MAX are included, BEFORE is not.
"""

from datetime import timedelta

KIB = 1024
MIB = 1024 * KIB

# Messages
MESSAGE_BYTES_MAX = 4 * MIB  # gRPC's own default: any client can send and receive it without being configured
EVENT_BYTES_MAX = 256 * KIB  # every field at its own limit stays below; 16 of them still fit into one message
CANONICAL_OBSERVATION_BYTES_MAX = (
    64 * KIB
)  # a quarter of the event, so that the observation never crowds out the signal
BATCH_ITEMS_MAX = 256  # beyond it the cost per item no longer falls, and the wait of the first item grows
BATCH_BYTES_MAX = MIB  # a batch and its answer stay far below MESSAGE_BYTES_MAX
REPLAY_RANGES_BYTES_MAX = 256 * KIB  # what a replay asks for: some 20,000 ranges, more than one page can answer
HELLO_SEGMENTS_MAX = 50_000  # 24 bytes each: a hello stays below 2 MiB
HELLO_REJECTED_MAX = 10_000  # records; beside the settled ranges the answer stays below MESSAGE_BYTES_MAX
HELLO_RANGES_MAX = 100_000  # its answer stays below 3 MiB; what is left out is sent again, which is no more than work

# Pages
PAGE_SIZE_DEFAULT = 100  # a screenful or two; what page_size 0 means
PAGE_SIZE_MAX = 1000  # bounds the rows held in memory per call
PAGE_BYTES_MAX = MIB  # events differ in size by a factor of 200, so a count alone bounds nothing
PAGE_FILTER_ITEMS_MAX = 256  # ids, positions or partitions in one filter: one statement of the store, as a batch
LEDGER_FILTER_ITEMS_MAX = 64  # ledgers in one reconcile run; each is a server to connect to
RECONCILE_PROBLEMS_MAX = (
    1000  # runs of failed records that one partition's summary names; more is one alarm all the same
)
SINCE_DAYS_MAX = 36_500  # all days between TIME_MIN and TIME_BEFORE

# Identifiers: printable ASCII, so that they can be typed, logged and put into a header as they are
ID_CHARS_MAX = 128  # longer than any source's own ids; short enough for an index key
NAME_CHARS_MAX = 64  # names of rules, factors, metrics and methods: made by us, read in a table column
SIGNAL_ID_DIGITS_MIN = 12  # 48 bits: short enough to be read out; what two events share is told apart by their hashes
SIGNAL_ID_DIGITS_RETRY = 32  # what a conflict is sent again under: 128 bits do not collide
SIGNAL_ID_DIGITS_MAX = 64  # the whole digest
TRACE_ID_DIGITS = 16  # 64 bits, the width of a span id
SEGMENT_ID_BYTES = 16  # 128 random bits never repeat

# Text: NFC and without NUL, since equal text must be equal bytes and PostgreSQL stores no NUL
TITLE_CHARS_MAX = 500  # a question, not an article
VALUE_CHARS_MAX = 500  # what one piece of evidence says: a line
DESCRIPTION_CHARS_MAX = 5000  # a page of text; at 4 bytes a character still a third of the canonical observation
RESOLUTION_CRITERIA_CHARS_MAX = 5000  # the longest seen on any market stays below
REASONING_CHARS_MAX = 1000  # one rule's inputs, threshold and verdict
EXPLANATION_CHARS_MAX = 20_000  # the reasoning of twenty rules
# The cursor of a watch: a number, and some forty bytes for each partition that is not sealed, of which there are few.
WATCH_CURSOR_BYTES_MAX = 64 * KIB
OPERATOR_REASON_CHARS_MAX = 500  # why delivery was paused or a dead letter dropped: a line for the next person
URL_CHARS_MAX = 2048  # what every browser and proxy takes
LABEL_CHARS_MAX = 64  # a tag, a keyword, the name of a region, a unit
PLACE_CHARS_MAX = 128  # the name of a place, the label of an answer

# Counts: what one page can show, and what keeps checking an event well below the cost of storing it
REPEATED_ITEMS_MAX = 64

# Times
TIME_MIN_S = 946_684_800  # 2000-01-01T00:00:00Z, included: earlier is a clock that was never set
TIME_BEFORE_S = 4_102_444_800  # 2100-01-01T00:00:00Z, excluded: later is milliseconds taken for seconds
EMITTED_AHEAD_MAX = timedelta(minutes=5)  # clocks of honest machines differ by less
DELIVERY_TIMEOUT_DEFAULT = timedelta(seconds=5)  # a healthy RiskCast answers in milliseconds
DELIVERY_TIMEOUT_MAX = timedelta(seconds=60)  # a caller that waits longer should watch instead
DURATION_S_MAX = 315_576_000_000  # what google.protobuf.Duration itself allows: 10,000 years

# Numbers
LATITUDE_MAX = 90.0
LONGITUDE_MAX = 180.0

# Errors
STATUS_BYTES_MAX = 4 * KIB  # a status above 8 KiB of metadata is lost on its way; base64 and the message add a half
VIOLATIONS_MAX = 20  # whoever fixes twenty sends again anyway
