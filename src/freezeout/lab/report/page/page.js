// Notes at points and lines, and legends that hide arms. Nothing is loaded; without this script the
// page shows the same figures, and browsers show the notes by themselves.
(() => {
  "use strict";
  const NEAR = 16; // pixels around a point in which it is meant
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  document.body.append(tip);
  const notes = new Map();
  let lit = null;

  for (const mark of document.querySelectorAll("figure .mark")) {
    const title = mark.querySelector(":scope > title");
    if (!title) continue;
    notes.set(mark, title.textContent);
    title.remove(); // else the browser shows it too
    for (const path of mark.querySelectorAll(":scope > path")) {
      if (getComputedStyle(path).fill !== "none") continue;
      const hit = path.cloneNode(); // thin lines are hard to point at
      hit.removeAttribute("style");
      hit.setAttribute("class", "hit");
      mark.prepend(hit);
    }
  }

  const shown = (svg) =>
    [...svg.querySelectorAll(".mark")].filter((mark) => notes.has(mark) && !mark.closest(".off"));
  const middle = (mark) => {
    const box = (mark.querySelector("use") || mark).getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };

  function nearest(svg, x, y, target) {
    let best = null;
    let least = NEAR;
    for (const mark of shown(svg)) {
      if (!mark.querySelector("use")) continue;
      const [left, top] = middle(mark);
      const distance = Math.hypot(left - x, top - y);
      if (distance <= least) [best, least] = [mark, distance];
    }
    const line = target.closest(".mark");
    return best || (line && notes.has(line) ? line : null);
  }

  function show(mark, x, y) {
    if (lit !== mark) {
      hide();
      lit = mark;
      mark.classList.add("lit");
      tip.textContent = notes.get(mark);
      tip.hidden = false;
    }
    const { width, height } = tip.getBoundingClientRect();
    const room = document.documentElement.clientWidth - width - 6;
    tip.style.left = `${Math.max(6, Math.min(x + 14, room))}px`;
    tip.style.top = `${y - height - 14 > 4 ? y - height - 14 : y + 18}px`;
  }

  function hide() {
    if (lit) lit.classList.remove("lit");
    lit = null;
    tip.hidden = true;
  }

  for (const svg of document.querySelectorAll("figure > svg")) {
    const point = (event) => {
      const mark = nearest(svg, event.clientX, event.clientY, event.target);
      if (mark) show(mark, event.clientX, event.clientY);
      else hide();
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") hide();
    });
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("keydown", (event) => {
      const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!way) return;
      event.preventDefault();
      const marks = shown(svg);
      if (!marks.length) return;
      const at = marks.indexOf(lit);
      const next = marks[at < 0 ? (way > 0 ? 0 : marks.length - 1) : (at + way + marks.length) % marks.length];
      show(next, ...middle(next));
    });
    svg.addEventListener("blur", hide);
  }
  addEventListener("keydown", (event) => event.key === "Escape" && hide());
  addEventListener("scroll", hide, { passive: true });
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest("figure > svg")) hide();
  });

  for (const legend of document.querySelectorAll(".legend")) {
    const part = legend.closest("section");
    const buttons = [...legend.querySelectorAll("[data-arm]")];
    const all = legend.querySelector(".all");
    const apply = () => {
      hide();
      const off = new Set();
      for (const button of buttons) {
        if (button.getAttribute("aria-pressed") === "false") off.add(button.dataset.arm);
      }
      for (const element of part.querySelectorAll("[data-arms]")) {
        element.classList.toggle("off", element.dataset.arms.split(" ").some((arm) => off.has(arm)));
      }
      all.hidden = off.size === 0;
    };
    for (const button of buttons) {
      button.disabled = false;
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") === "false"));
        apply();
      });
    }
    all.addEventListener("click", () => {
      for (const button of buttons) button.setAttribute("aria-pressed", "true");
      apply();
      buttons[0].focus();
    });
  }
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
