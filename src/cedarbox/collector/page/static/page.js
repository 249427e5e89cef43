"use strict";

// Everything works without this file. It adds the switch of the look, local times, keys, and folding.

const root = document.documentElement;

function looks() {
  const button = document.getElementById("look");
  const prefers = window.matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.look || (prefers.matches ? "dark" : "light");
  const name = () => {
    const other = current() === "dark" ? "light" : "dark";
    button.textContent = other === "dark" ? "Dark" : "Light";
    button.setAttribute("aria-label", `Switch to the ${other} look`);
  };
  button.addEventListener("click", () => {
    const look = current() === "dark" ? "light" : "dark";
    root.dataset.look = look;
    document.cookie = `cedarbox-look=${look}; Path=/; Max-Age=31536000; SameSite=Strict`;
    name();
  });
  prefers.addEventListener("change", name);
  button.hidden = false;
  name();
}

function times() {
  document.addEventListener("pointerover", (event) => {
    const time = event.target.closest && event.target.closest("time");
    if (!time || time.dataset.local) return;
    time.dataset.local = "1";
    const local = new Date(time.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "long" });
    time.title = `${time.title}\n${local} here`;
  });
}

function rowsOf(list) {
  return [...list.querySelectorAll("[data-row]")].filter((row) => row.checkVisibility());
}

function move(step) {
  const focused = document.activeElement && document.activeElement.closest("[data-row]");
  const list = (focused && focused.closest("[data-list]")) || document.querySelector("[data-list]");
  if (!list) return;
  let rows = rowsOf(list);
  let at = focused ? rows.indexOf(focused) + step : step > 0 ? 0 : rows.length - 1;
  if (at < 0 || at >= rows.length) {
    const lists = [...document.querySelectorAll("[data-list]")];
    const next = lists[lists.indexOf(list) + step];
    if (!next) return;
    rows = rowsOf(next);
    at = step > 0 ? 0 : rows.length - 1;
  }
  if (!rows[at]) return;
  rows[at].focus();
  rows[at].scrollIntoView({ block: "nearest" });
}

function fold(row, open) {
  const details = row.closest("details");
  const own = row.tagName === "SUMMARY" ? row.parentElement : null;
  if (own && own.open !== open) {
    own.open = open;
  } else if (!open) {
    const outer = (own || row).parentElement.closest("details");
    if (outer && outer !== details) outer.querySelector(":scope > summary").focus();
    else if (details && details !== own) details.querySelector(":scope > summary").focus();
  } else {
    move(1);
  }
}

function keys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const target = event.target;
    const typing = target.closest("input, select, textarea, pre");
    if (typing) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const row = target.closest("[data-row]") === target ? target : null;
    const tree = row && row.closest("[data-tree]");
    if (event.key === "/") document.getElementById("q").focus();
    else if (event.key === "j" || (row && event.key === "ArrowDown")) move(1);
    else if (event.key === "k" || (row && event.key === "ArrowUp")) move(-1);
    else if (tree && event.key === "ArrowLeft") fold(row, false);
    else if (tree && event.key === "ArrowRight") fold(row, true);
    else if (row && event.key === "Enter") {
      const link = row.querySelector("[data-open]");
      if (!link) return;
      link.click();
    } else return;
    event.preventDefault();
  });
}

function folding() {
  for (const box of document.querySelectorAll(".fold")) box.hidden = false;
  for (const button of document.querySelectorAll("[data-fold]")) {
    button.addEventListener("click", () => {
      const open = button.dataset.fold === "open";
      for (const details of document.querySelectorAll(".fall details:not(.attrs)")) details.open = open;
    });
  }
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll(".fall details:not(.attrs)")) details.open = true;
  });
}

looks();
times();
keys();
folding();
