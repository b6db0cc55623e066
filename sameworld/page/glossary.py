"""The words that the report uses, defined once."""

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("impression", "an item shown to someone, in a request, at a position"),
    ("outcome", "what someone did with an impression: a click, a purchase, a rating"),
    ("shown at, happened at", "when the impression, and when the outcome, took place"),
    ("arrived at", "when the log first had the row"),
    ("available at", "when a batch feature's value could first be read"),
    ("cutoff", "the run's “now”: nothing that arrived at or after it is read"),
    ("window", "how long after the impression an outcome counts"),
    ("landing lag", "from the event to its arrival in the log"),
    ("open, closed", "a label is open until its window and the landing lag have passed; closed, it never changes"),
    ("completeness", "share of the outcomes still to be expected that is known by an age"),
    ("examination", "how probable it is that a position is looked at, relative to the top"),
    ("propensity", "how probable it was that the logging policy showed this item at this position"),
    ("off-policy", "judging an order that was not shown, from the log of one that was"),
    ("calibration ratio", "sum of the predicted probabilities over the number of outcomes; 1 is right"),
    ("normalised entropy", "log loss over that of always predicting the average rate; lower is better"),
    ("back-test", "a model of an earlier cutoff, judged on later requests whose labels have closed"),
    ("baseline", "the simple order to beat: the most popular items, or the order as logged"),
    ("champion", "the version now in production"),
    ("bundle", "one model version with all that it needs to rank"),
    ("interval", "the range, at 95 %, that goes with every estimate"),
)
