"""The recognized turns as HTML."""

from __future__ import annotations

from selfemo_jobs.playground.turn_html import ShownTurn, hue_of, note_html, replies_html, turns_html

LABELS = ["neutral", "joy", "anger"]


def turn(*labels: str, text: str = "Hi.", speaker: str = "Ann") -> ShownTurn:
    shares = {"neutral": 0.1, "joy": 0.7, "anger": 0.2}
    return ShownTurn(speaker, text, labels, shares)


def test_texts_are_escaped() -> None:
    odd = turn("joy", text="<script>alert(1)</script> &", speaker='"<b>')
    html = turns_html([odd], LABELS)
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in html
    assert "&quot;&lt;b&gt;:" in html
    assert "<i>" not in note_html("<i>")


def test_labels_are_escaped() -> None:
    label = '<img src=x>"'
    html = turns_html([ShownTurn("Ann", "Hi.", (label,), {label: 1.0})], [label, "joy"])
    assert "<img" not in html


def test_a_turn_shows_its_most_probable_labels_in_order() -> None:
    html = turns_html([turn("joy")], LABELS)
    assert html.index("joy<span") < html.index("anger<span") < html.index("neutral<span")
    assert "0.70" in html
    assert 'class="label top">joy' in html


def test_an_answer_that_is_not_among_the_probable_labels_is_named() -> None:
    labels = [f"label {n}" for n in range(8)]
    shares = {label: (8 - n) / 36 for n, label in enumerate(labels)}
    html = turns_html([ShownTurn("", "Hi.", (labels[7],), shares)], labels)
    assert '<span class="label top">label 7</span>' in html


def test_turns_that_two_models_read_differently_are_marked() -> None:
    html = turns_html([turn("joy"), turn("anger")], LABELS, [turn("joy"), turn("joy")])
    assert html.count('class="turn differs"') == 1
    assert "differs" not in turns_html([turn("joy")], LABELS)


def test_labels_have_colors_of_their_own_and_neutral_has_none() -> None:
    many = [f"label {n}" for n in range(64)]
    assert len({hue_of(label, many) for label in many}) == 64
    assert "--saturation: 0%" in turns_html([turn("neutral")], LABELS)
    assert "--saturation: 65%" in turns_html([turn("joy")], LABELS)


def test_replies_are_counted_by_the_intended_emotion() -> None:
    html = replies_html("Bo", [turn("joy"), turn("anger"), turn()], "joy", LABELS)
    assert "1 of 3 replies by Bo are classified as joy." in html
    assert "no emotion" in html
