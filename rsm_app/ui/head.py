"""What stands in every page's head: scripts that mend what Gradio's pages trip over in some browsers."""

from __future__ import annotations

# A browser that keeps nothing for a page, as for a frame of another site in a private window, has no
# storage or throws when it is touched, which Gradio does not expect: such a page remembers until it is left.
_STORAGE = """<script>
for (const name of ["localStorage", "sessionStorage"]) {
  try {
    window[name].getItem(name);
  } catch {
    const kept = new Map();
    const storage = {
      get length() { return kept.size; },
      key: (number) => [...kept.keys()][number] ?? null,
      getItem: (key) => kept.get(String(key)) ?? null,
      setItem: (key, value) => { kept.set(String(key), String(value)); },
      removeItem: (key) => { kept.delete(String(key)); },
      clear: () => { kept.clear(); },
    };
    try {
      Object.defineProperty(window, name, {value: storage, configurable: true});
    } catch {}
  }
}
</script>"""
# Gradio's charts go on to measure themselves after they were taken off the page, and fail there.
_OBSERVER = """<script>
window.ResizeObserver = class extends window.ResizeObserver {
  constructor(told) {
    super((entries, observer) => {
      const present = entries.filter((entry) => entry.target.isConnected);
      if (present.length) told(present, observer);
    });
  }
};
</script>"""
HEAD = f'<meta name="color-scheme" content="light dark">{_STORAGE}{_OBSERVER}'
