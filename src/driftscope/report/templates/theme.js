// ---- light and dark: the system's choice until the reader makes another
const root = document.documentElement;
root.classList.add("scripted");
const themeButton = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const remembered = () => { try { return localStorage.getItem("driftscope-theme"); } catch { return null; } };
const isDark = () => (root.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";
const themeListeners = [];
function showTheme(choice) {
  if (choice) root.dataset.theme = choice;
  themeButton.setAttribute("aria-pressed", String(isDark()));
  themeButton.textContent = isDark() ? "Light page" : "Dark page";
  themeListeners.forEach((listener) => listener());
}
showTheme(remembered());
systemDark.addEventListener("change", () => showTheme(root.dataset.theme));
themeButton.addEventListener("click", () => {
  const choice = isDark() ? "light" : "dark";
  try { localStorage.setItem("driftscope-theme", choice); } catch { /* a page from a mail may not remember */ }
  showTheme(choice);
});

// ---- printing opens what is folded
const unfolded = [], plainHeadings = [];
addEventListener("beforeprint", () => {
  // a heading that repeats on every page is drawn there only if it is plain text
  document.querySelectorAll("thead button.sort").forEach((button) => {
    const text = element("span", { textContent: button.textContent });
    button.replaceWith(text);
    plainHeadings.push([text, button]);
  });
  document.querySelectorAll("details:not([open]):not(.numbers-only)").forEach((fold) => { fold.open = true; unfolded.push(fold); });
});
addEventListener("afterprint", () => {
  plainHeadings.splice(0).forEach(([text, button]) => text.replaceWith(button));
  unfolded.splice(0).forEach((fold) => { fold.open = false; }); });

// ---- what every part needs
const readJson = (id) => JSON.parse(document.getElementById(id).textContent);
const announcer = document.getElementById("announcer");
const announce = (text) => { announcer.textContent = text; };
function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}
