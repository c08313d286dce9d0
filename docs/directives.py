"""What this site's pages may use beyond Sphinx, and how docstrings become pages."""

import ast
import re
import textwrap
from pathlib import Path

import picture
from docutils import nodes
from sphinx.util.docutils import SphinxDirective


def strip_code(app, doctree):
    """Doctest wants an empty line at the end of an example; a reader does not."""
    for block in doctree.findall(nodes.literal_block):
        text = block.astext().rstrip()
        if block.rawsource == block.astext():
            block.rawsource = text
            block[:] = [nodes.Text(text)]


INDEX = re.compile(
    r"_\{(?P<below>[^{}]*)\}"
    r"|(?<=[^\W\d_]|[²Σ∇∂*\u0302\u0303])(?<![A-Za-z][A-Za-z])"
    r"_(?P<short>∞|(?:max|min|[A-Za-z0-9α-ωŵ]{1,2})(?![A-Za-z0-9_]))"
    r"|\^(?:\{(?P<above>[^{}]*)\}|(?P<power>\w)(?!\w))"
)


def indices(text):
    """Return the parts of a text, with what is below and above its letters as nodes."""
    parts, end = [], 0
    for m in INDEX.finditer(text):
        role = nodes.superscript if m["above"] or m["power"] else nodes.subscript
        parts += [nodes.Text(text[end : m.start()]), role("", m[m.lastgroup])]
        end = m.end()
    return [*parts, nodes.Text(text[end:])]


def set_indices(app, doctree):
    """In a terminal a docstring's h_{T−K} is as good as it gets; here it can be set."""
    if app.env.docname.startswith(("api", "generated/")):
        for text in list(doctree.findall(nodes.Text)):
            if isinstance(text.parent, nodes.paragraph):
                text.parent.replace(text, indices(text))


class LinesOf(SphinxDirective):
    """``FILE::FUNCTION``: show a function as it is, without its docstring."""

    required_arguments = 1

    def run(self):
        file, dotted = self.arguments[0].split("::")
        path = Path(__file__).parents[1] / file
        self.env.note_dependency(path)
        text = path.read_text("utf-8")
        body = ast.parse(text).body
        for name in dotted.split("."):
            node = next(n for n in body if getattr(n, "name", None) == name)
            body = node.body
        lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
        if ast.get_docstring(node):
            del lines[body[0].lineno - node.lineno : body[0].end_lineno - node.lineno + 1]
        code = textwrap.dedent("\n".join(lines))
        return [nodes.literal_block(code, code, language="python", caption=file)]


class BackwardPass(SphinxDirective):
    """The picture of the home page."""

    def run(self):
        return [nodes.raw("", picture.svg(), format="html")]


def house_style(gallery_conf, path):
    """Draw the gallery as `tinybilevel.plotting` draws; the examples need not say so."""
    import matplotlib

    import tinybilevel as tb

    with tb.plotting.style():
        settings = matplotlib.rcParams.copy()
    matplotlib.rcParams.update(settings)


def setup(app):
    app.add_directive("backward-pass", BackwardPass)
    app.add_directive("lines-of", LinesOf)
    app.connect("doctree-read", strip_code)
    app.connect("doctree-read", set_indices)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
