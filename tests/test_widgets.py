"""Interactives: controls that report on release, and a drawing that follows them."""

import ipywidgets
import matplotlib

matplotlib.use("Agg")
import pytest  # noqa: E402

from ddpm_course import widgets  # noqa: E402


def test_sliders_are_whole_if_their_numbers_are() -> None:
    whole, real = widgets.slider(1, 10, 3, label="t"), widgets.slider(0.0, 1.0, 0.5, 0.1)
    assert isinstance(whole, ipywidgets.IntSlider) and isinstance(real, ipywidgets.FloatSlider)
    assert (whole.min, whole.max, whole.value, whole.step, whole.description) == (1, 10, 3, 1, "t")
    assert (real.value, real.step) == (0.5, 0.1)
    assert not whole.continuous_update and not real.continuous_update


def test_a_choice_begins_with_its_first_option() -> None:
    drop_down = widgets.choice(("a", "b"), "name")
    assert (drop_down.value, drop_down.options, drop_down.description) == ("a", ("a", "b"), "name")


def test_a_text_reports_when_it_is_finished() -> None:
    field = widgets.text_field("a red three", "prompt")
    assert isinstance(field, ipywidgets.Text) and not field.continuous_update
    assert (field.value, field.description) == ("a red three", "prompt")


def test_the_drawing_follows_the_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, drawn = [], []
    monkeypatch.setattr(widgets, "display", shown.append)
    monkeypatch.setattr(widgets.plt, "show", lambda: drawn.append("shown"))
    t, kind = widgets.slider(1, 10, 3), widgets.choice(["x", "y"], "kind of")
    widgets.explore(lambda **values: drawn.append(values), t=t, kind=kind)
    assert drawn == [{"t": 3, "kind": "x"}, "shown"]
    t.value = 7
    kind.value = "y"
    assert drawn[2:] == [{"t": 7, "kind": "x"}, "shown", {"t": 7, "kind": "y"}, "shown"]
    assert (t.description, kind.description) == ("t", "kind of")  # a control without a label gets its keyword
    assert shown[0].children[:2] == (t, kind) and isinstance(shown[0].children[2], ipywidgets.Output)
