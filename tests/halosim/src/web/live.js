// New actions on an open ticket, and changes to a list, appear by themselves.
// Without scripts, the pages work the same but must be reloaded.
'use strict';
const live = document.querySelector('[data-live]');
if (live) {
  setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(live.dataset.live + (live.dataset.live.includes('?') ? '&' : '?') + 'seen=' + live.dataset.seen);
      if (answer.status !== 200) return;
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const fresh = page.querySelector('[data-live]');
      live.dataset.seen = fresh.dataset.seen;
      live.replaceChildren(...fresh.childNodes);
    } catch { /* the next one may come through */ }
  }, 2000);
}
