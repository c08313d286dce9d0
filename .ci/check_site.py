"""Check a built site: `python .ci/check_site.py FOLDER`. Prints what is wrong, and exits with 1.

- Every link inside the site leads to a page, and to an anchor that is there.
- Nothing is fetched from elsewhere to show a page: scripts, styles, pictures.
- No summary in the API's tables is cut short at an abbreviation.
- Where there is a Chromium, it opens pages without a network, and all their formulas are set.
"""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

FORMULAS = ("index", "derivations/recursion", "statements")  # opened in the browser


class Page(HTMLParser):
    """The anchors, the links and the sources of one page."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.sources = set(), set(), set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.add(attributes["href"])
        elif tag == "link" and attributes.get("rel") in ("stylesheet", "icon", "preload"):
            self.sources.add(attributes["href"])
        elif attributes.get("src"):
            self.sources.add(attributes["src"])


def faults(root):
    pages = {path: Page(path) for path in root.rglob("*.html")}
    for path, page in pages.items():
        name = path.relative_to(root)
        for source in page.sources:
            if urlsplit(source).netloc:
                yield f"{name} loads {source}"
        for link in page.links | page.sources:
            url = urlsplit(link)
            if url.scheme or url.netloc or link == "#":
                continue
            target, anchor = urldefrag(link)
            file = (path.parent / unquote(urlsplit(target).path)).resolve() if target else path
            if not file.exists():
                yield f"{name} links to {link}, which is not there"
            elif "=" in anchor:
                continue  # a setting, which the page's script reads
            elif anchor and file in pages and unquote(anchor) not in pages[file].anchors:
                yield f"{name} links to {link}, which has no such anchor"
    for cell in re.findall(r"<td><p>(.*?)</p></td>", (root / "api.html").read_text("utf-8")):
        if re.search(r"\b(eqs?|e\.g|i\.e|Fig)\.$", cell):
            yield f"api.html cuts a summary: {cell}"


def unset_formulas(root, chromium):
    for name in FORMULAS:
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000"]
        url = (root / f"{name}.html").as_uri()
        dom = subprocess.run([*command, *offline, url], capture_output=True, text=True, timeout=300)
        formulas, typeset = (dom.stdout.count(f) for f in ('class="math ', "<mjx-container"))
        print(f"{name}: {typeset} of {formulas} formulas set in {Path(chromium).name}, offline")
        if not formulas or typeset != formulas or '<g data-mml-node="merror"' in dom.stdout:
            yield f"{name}.html does not set its formulas"


def main(root):
    found = list(faults(root))
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser:
        found += unset_formulas(root, browser)
    else:
        print("SKIPPED: formulas in a browser; there is no Chromium here")
    print("\n".join(found) or "every link leads somewhere, and nothing is loaded from outside")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
