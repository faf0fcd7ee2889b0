"""The reference implementation of point-in-time joins says what the rules say."""

from mlops_platform.features.domain.joins import FeatureRow, JoinRules, Moment, point_in_time, winner

HOUR = 3_600_000_000
FOREVER = 10**18


def row(event: int, *, entity="a", created: int | None = None, batch="0", value: object = 1) -> FeatureRow:
    return FeatureRow(entity, event, event if created is None else created, batch, {0: value})


class TestEventTime:
    def test_a_row_at_the_very_moment_of_the_label_counts(self):
        assert winner(Moment("a", 5), [row(5)], JoinRules(FOREVER)) == row(5)

    def test_a_row_one_microsecond_later_never_counts(self):
        assert winner(Moment("a", 5), [row(6)], JoinRules(FOREVER)) is None

    def test_the_latest_earlier_row_wins(self):
        assert winner(Moment("a", 9), [row(3), row(7), row(5)], JoinRules(FOREVER)) == row(7)

    def test_rows_of_other_entities_do_not_count(self):
        assert winner(Moment("a", 9), [row(3, entity="b")], JoinRules(FOREVER)) is None

    def test_a_label_without_entity_matches_nothing(self):
        assert winner(Moment(None, 9), [row(3)], JoinRules(FOREVER)) is None

    def test_a_null_of_the_winner_is_not_filled_from_an_older_row(self):
        assert winner(Moment("a", 9), [row(3), row(7, value=None)], JoinRules(FOREVER)) == row(7, value=None)


class TestTies:
    def test_of_equal_events_the_one_ingested_last_wins(self):
        corrected = row(5, created=20)
        assert winner(Moment("a", 9), [corrected, row(5, created=10)], JoinRules(FOREVER)) == corrected

    def test_of_equal_times_the_later_batch_wins(self):
        rows = [row(5, created=10, batch="2"), row(5, created=10, batch="1")]
        assert winner(Moment("a", 9), rows, JoinRules(FOREVER)) == rows[0]


class TestTtl:
    def test_a_row_exactly_as_old_as_the_ttl_still_counts(self):
        assert winner(Moment("a", 5 + HOUR), [row(5)], JoinRules(FOREVER, ttl_us=HOUR)) == row(5)

    def test_a_row_one_microsecond_older_does_not(self):
        assert winner(Moment("a", 6 + HOUR), [row(5)], JoinRules(FOREVER, ttl_us=HOUR)) is None


class TestAsKnown:
    def test_a_row_ingested_after_the_label_does_not_count(self):
        assert winner(Moment("a", 9), [row(5, created=10)], JoinRules(FOREVER, as_known=True)) is None

    def test_a_late_row_of_an_older_event_does_not_hide_a_newer_one(self):
        newer, late = row(7, created=7), row(3, created=8)
        assert winner(Moment("a", 9), [newer, late], JoinRules(FOREVER, as_known=True)) == newer

    def test_before_a_correction_was_known_the_first_value_counts(self):
        first, corrected = row(5, created=5), row(5, created=50)
        answers = point_in_time([Moment("a", 49), Moment("a", 50)], [first, corrected], JoinRules(FOREVER, as_known=True))
        assert answers == [first, corrected]


def test_rows_ingested_after_the_cut_do_not_count_in_either_mode():
    for as_known in (False, True):
        assert winner(Moment("a", 9), [row(5, created=8)], JoinRules(7, as_known=as_known)) is None


def test_every_label_comes_back_once_and_in_its_place():
    moments = [Moment("a", 9), Moment("z", 9), Moment("a", 1), Moment("a", 9)]
    assert point_in_time(moments, [row(5)], JoinRules(FOREVER)) == [row(5), None, None, row(5)]
