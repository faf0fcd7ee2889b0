"""The search language: what it reads, what it refuses, and where it points."""

import math
import string
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_platform.core.query.errors import QueryError, point_at
from mlops_platform.core.query.lexer import MAX_LENGTH
from mlops_platform.core.query.parser import MAX_DEPTH, MAX_TERMS, MAX_VALUES, parse_filter, parse_order
from mlops_platform.core.query.tree import And, Comparator, Compare, Field, IsNull, Like, Not, OneOf, Or, Order, fields_of
from mlops_platform.core.query.vocabulary import Attribute, Collection, Type, Vocabulary

VOCABULARY = Vocabulary(
    attributes={
        "status": Attribute(Type.TEXT, choices=("RUNNING", "FINISHED")),
        "name": Attribute(Type.TEXT),
        "start_time": Attribute(Type.TIME),
        "size": Attribute(Type.NUMBER),
    },
    collections={
        "metrics": Collection(Type.NUMBER, summaries=("min", "max")),
        "params": Collection(Type.ANY),
        "tags": Collection(Type.TEXT),
    },
    aliases={"metric": "metrics", "created": "start_time"},
)


def read(text):
    return parse_filter(text, VOCABULARY)


def column_of(text):
    with pytest.raises(QueryError) as caught:
        read(text)
    return caught.value.column


def reads_or_points_inside(text):
    try:
        read(text)
    except QueryError as error:
        return 1 <= error.column <= len(text) + 1
    return True


def metric(name, column=1, summary=None):
    return Field(name, collection="metrics", summary=summary, column=column)


class TestDepth:
    def test_a_prefix_is_read_once_and_not_for_ever(self):
        assert read("attributes.size = 1") == read("attr.size = 1").__class__(Field("size", column=12), Comparator.EQ, 1.0)
        assert column_of("attr." * (MAX_LENGTH // 5 - 3) + "size = 1") == 6


class TestReading:
    def test_an_empty_filter_is_no_filter(self):
        assert read("  \n ") is None

    def test_and_binds_closer_than_or(self):
        tree = read("size = 1 OR size = 2 AND size = 3")
        assert isinstance(tree, Or)
        assert isinstance(tree.terms[1], And)

    def test_parentheses_overrule_the_precedence(self):
        tree = read("(size = 1 OR size = 2) AND size = 3")
        assert isinstance(tree, And)
        assert isinstance(tree.terms[0], Or)

    def test_not_binds_closest(self):
        tree = read("NOT size = 1 AND size = 2")
        assert isinstance(tree, And)
        assert isinstance(tree.terms[0], Not)

    @pytest.mark.parametrize("written", ["=", "==", "!=", "<>", "<", "<=", ">", ">="])
    def test_every_comparison_is_read(self, written):
        tree = read(f"metrics.acc {written} 0.5")
        comparator = {"==": Comparator.EQ, "<>": Comparator.NE}.get(written) or Comparator(written)
        assert tree == Compare(metric("acc"), comparator, 0.5)

    @pytest.mark.parametrize(
        ("written", "value"), [("1", 1.0), ("-2.5", -2.5), (".5", 0.5), ("1e-3", 0.001), ("+3.", 3.0), ("-inf", -math.inf)]
    )
    def test_numbers_are_read_as_people_write_them(self, written, value):
        assert read(f"metrics.acc > {written}") == Compare(metric("acc"), Comparator.GT, value)

    def test_nan_can_be_asked_for(self):
        tree = read("metrics.loss = NaN")
        assert isinstance(tree, Compare)
        assert str(tree.value) == "nan"

    def test_a_dotted_key_is_one_key(self):
        tree = read("params.model.layers.0.units = 3")
        assert tree == Compare(Field("model.layers.0.units", collection="params"), Comparator.EQ, 3)

    @pytest.mark.parametrize("written", ["metrics.`a b/c'd`", 'metrics."a b/c\'d"', 'metric."a b/c\'d"'])
    def test_odd_keys_stand_in_quotes(self, written):
        assert read(f"{written} > 1") == Compare(metric("a b/c'd"), Comparator.GT, 1.0)

    def test_a_summary_is_the_last_part_of_a_key(self):
        assert read("metrics.val.loss.min < 1") == Compare(metric("val.loss", summary="min"), Comparator.LT, 1.0)

    def test_a_key_that_is_only_a_summary_word_is_a_key(self):
        assert read("metrics.min < 1") == Compare(metric("min"), Comparator.LT, 1.0)

    def test_a_quoted_key_keeps_a_summary_word(self):
        assert read("metrics.`loss.min`.max < 1") == Compare(metric("loss.min", summary="max"), Comparator.LT, 1.0)

    def test_a_quote_inside_a_text_is_doubled(self):
        assert read("name = 'it''s'") == Compare(Field("name"), Comparator.EQ, "it's")

    def test_in_takes_a_list(self):
        tree = read("params.opt NOT IN ('a', 2, true)")
        assert tree == OneOf(Field("opt", collection="params"), ("a", 2, True), negated=True)

    def test_like_and_ilike_take_a_pattern(self):
        assert read("name LIKE 'a%'") == Like(Field("name"), "a%")
        assert read("tags.x not ilike 'A_'") == Like(Field("x", collection="tags"), "A_", ignores_case=True, negated=True)

    def test_is_null_asks_for_absence(self):
        assert read("tags.x IS NULL") == IsNull(Field("x", collection="tags"))
        assert read("tags.x is not null") == IsNull(Field("x", collection="tags"), negated=True)

    def test_keywords_and_names_of_attributes_are_read_in_any_case(self):
        tree = read("Status = 'finished' and METRICS.Acc > 1")
        assert isinstance(tree, And)
        assert tree.terms[0] == Compare(Field("status"), Comparator.EQ, "FINISHED")
        assert [field.name for field in fields_of(tree)] == ["status", "Acc"]

    def test_attributes_may_carry_a_prefix(self):
        assert read("attributes.size = 1") == Compare(Field("size", column=12), Comparator.EQ, 1.0)

    @pytest.mark.parametrize(
        "written", ["'2026-01-31T09:00:00Z'", "'2026-01-31T10:00:00+01:00'", "'2026-01-31 09:00'", "1769850000000"]
    )
    def test_times_are_texts_or_milliseconds(self, written):
        tree = read(f"created >= {written}")
        assert tree == Compare(Field("start_time"), Comparator.GE, datetime(2026, 1, 31, 9, tzinfo=UTC))

    def test_every_field_of_a_tree_is_listed(self):
        tree = read("NOT (size = 1 OR metrics.acc > 1) AND name LIKE 'x'")
        assert [field.name for field in fields_of(tree)] == ["size", "acc", "name"]

    def test_an_order_has_a_direction(self):
        assert parse_order("metrics.acc DESC", VOCABULARY) == Order(metric("acc"), descending=True)
        assert parse_order("name", VOCABULARY) == Order(Field("name"))


class TestPointing:
    @pytest.mark.parametrize(
        ("text", "column"),
        [
            ("metrics.acc >> 1", 14),
            ("metrics.acc > ", 15),
            ("metrics > 1", 9),
            ("bogus = 1", 1),
            ("size = 1 AND bogus = 1", 14),
            ("size = 1 size = 2", 10),
            ("(size = 1", 10),
            ("size = 'x'", 8),
            ("name = 3", 8),
            ("status = 'gone'", 10),
            ("name = 'open", 8),
            ("size # 1", 6),
            ("metrics.a-b > 1", 10),
            ("metrics.acc LIKE 'a'", 13),
            ("size IS 3", 9),
            ("size IN (1, )", 13),
            ("size IN ()", 10),
            ("start_time > 'yesterday'", 14),
            ("start_time > '0001-01-01T00:00:00+23:00'", 14),
            ("metrics.acc < NaN", 15),
            ("params.x < true", 12),
            ("name NOT 'x'", 10),
            ("name LIKE 3", 11),
            ("name LIKE", 10),
            ("tags.`x`.min = 'a'", 6),
            ("tags.`` = 'a'", 6),
            ("AND", 1),
            ("size", 5),
            ("size = " + "9" * 400, 8),
            ("size = 1" + "\x00", 9),
        ],
    )
    def test_an_error_points_at_the_column(self, text, column):
        assert column_of(text) == column

    def test_the_message_shows_the_line_with_a_caret(self):
        with pytest.raises(QueryError) as caught:
            read("metrics.acc >> 1")
        assert caught.value.detail.endswith("metrics.acc >> 1\n             ^")
        assert caught.value.errors[0].field == "filter"

    def test_a_long_text_is_shown_around_the_caret_only(self):
        shown = point_at("x" * 500 + "!" + "y" * 500, 501)
        line, caret = shown.split("\n")
        assert len(line) < 120
        assert line[len(caret) - 1] == "!"

    def test_an_order_points_too(self):
        with pytest.raises(QueryError) as caught:
            parse_order("metrics.acc DOWN", VOCABULARY)
        assert caught.value.column == 13
        assert caught.value.errors[0].field == "order_by"


class TestBounds:
    def test_a_text_that_is_too_long_is_refused(self):
        assert column_of("size = 1 OR " * 1000) == MAX_LENGTH

    def test_depth_is_bounded(self):
        assert column_of("(" * (MAX_DEPTH + 10) + "size = 1") == MAX_DEPTH + 1

    def test_a_chain_of_not_is_bounded(self):
        with pytest.raises(QueryError, match="nested deeper"):
            read("NOT " * 2000 + "size = 1")

    def test_the_number_of_comparisons_is_bounded(self):
        with pytest.raises(QueryError, match="more than 200 comparisons"):
            read(" OR ".join(["size = 1"] * (MAX_TERMS + 1)))

    def test_a_long_flat_chain_within_the_bound_is_read(self):
        tree = read(" OR ".join(["size = 1"] * MAX_TERMS))
        assert isinstance(tree, Or)
        assert len(tree.terms) == MAX_TERMS

    def test_a_list_of_values_is_bounded(self):
        with pytest.raises(QueryError, match="more than 1000 values"):
            read(f"size IN ({','.join(['1'] * (MAX_VALUES + 1))})")

    @given(st.text(max_size=300))
    def test_any_text_is_read_or_refused_with_a_column_inside_it(self, text):
        assert reads_or_points_inside(text)

    @given(
        st.lists(
            st.sampled_from(
                [
                    "size",
                    "metrics.acc",
                    "params.",
                    "tags.x",
                    "AND",
                    "OR",
                    "NOT",
                    "(",
                    ")",
                    "=",
                    ">",
                    "IN",
                    "LIKE",
                    "IS",
                    "NULL",
                    "1",
                    "'a'",
                    '"b"',
                    "`c`",
                    ".",
                    ",",
                    "NaN",
                    "-inf",
                    "true",
                    "min",
                    "''",
                    "1e999",
                ]
            ),
            max_size=30,
        ),
        st.sampled_from(["", " "]),
    )
    def test_any_row_of_words_is_read_or_refused_with_a_column_inside_it(self, words, between):
        text = between.join(words)
        assert reads_or_points_inside(text)

    @given(st.text(alphabet=string.printable, min_size=1, max_size=40).filter(lambda key: "`" not in key))
    def test_any_key_can_be_named_in_backticks(self, key):
        tree = read(f"params.`{key}` = 1")
        assert isinstance(tree, Compare)
        assert tree.field.name == key
