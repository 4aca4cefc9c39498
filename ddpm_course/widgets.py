"""Interactives: sliders over a drawing function. The only home of ipywidgets in the package."""

from collections.abc import Callable, Sequence

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import display


def slider(low: float, high: float, value: float, step: float = 1, label: str = "") -> ipywidgets.Widget:
    """A slider that reports only when it is released; an integer slider if all numbers are integers."""
    whole = all(isinstance(v, int) for v in (low, high, value, step))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(
        min=low, max=high, value=value, step=step, description=label, continuous_update=False, layout=ipywidgets.Layout(width="480px")
    )


def choice(options: Sequence[object], label: str = "") -> ipywidgets.Widget:
    """A drop-down list, its first option chosen."""
    return ipywidgets.Dropdown(options=list(options), description=label)


def text_field(value: str, label: str = "") -> ipywidgets.Widget:
    """A line of text that reports when Enter is pressed or the field is left."""
    return ipywidgets.Text(value=value, description=label, continuous_update=False, layout=ipywidgets.Layout(width="480px"))


def explore(draw: Callable[..., object], **controls: ipywidgets.Widget) -> None:
    """Show `controls` above what `draw(**values)` draws with matplotlib; it is redrawn when a control is released."""

    def redraw(**values: object) -> None:
        """Draw once with the current values."""
        draw(**values)
        plt.show()

    for name, control in controls.items():
        control.description = control.description or name
    output = ipywidgets.interactive_output(redraw, controls)
    display(ipywidgets.VBox([*controls.values(), output]))
