import re

from audiojax import html, study
from audiojax.study import Study
from tests import studies


def test_text_of_a_template_is_escaped_and_can_be_written():
    found = studies.made() | {"study": vars(Study(choices="repetition"))}
    values = {"study": found, "saying": study.SAYING, "drawings": []}
    page = html.render("study.html", name="<b>\udce9</b>", **values)
    assert "&lt;b&gt;\ufffd&lt;/b&gt;" in page
    assert "He-normal by fan-out" in page
    page.encode()
    # Nothing is fetched: the style is in the page.
    assert "<style>" in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
