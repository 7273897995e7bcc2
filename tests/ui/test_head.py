"""What the head of every page mends of Gradio's own frontend, in a browser."""

from tests.ui.steps import open_page

# A box that is measured, then taken off the page while its measure is on the way; another one stays.
_STORY = """() => new Promise((end) => {
  const told = [], boxes = ["gone", "kept"].map((name) => {
    const box = document.body.appendChild(document.createElement("div"));
    Object.assign(box.style, {width: "10px", height: "10px"});
    new ResizeObserver((entries) => told.push(name + entries[0].target.offsetWidth)).observe(box);
    return box;
  });
  requestAnimationFrame(() => requestAnimationFrame(() => {
    boxes[0].remove();
    boxes[1].style.width = "20px";
    requestAnimationFrame(() => requestAnimationFrame(() => { boxes[1].remove(); end(told); }));
  }));
})"""


def test_nothing_is_measured_after_it_was_taken_off_the_page(page, server):
    open_page(page, server.url)
    assert page.evaluate(_STORY) == ["gone10", "kept10", "kept20"]
