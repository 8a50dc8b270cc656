// The button that changes between light and dark; it is shown only where scripts run.
(() => {
  const root = document.documentElement, button = document.getElementById("theme"), key = "aupipe-theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const keep = (value) => { try { localStorage.setItem(key, value); } catch { /* no storage: this page only */ } };
  const shown = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  const name = () => { button.textContent = shown() === "dark" ? "Light" : "Dark"; };
  if (kept() === "dark" || kept() === "light") root.dataset.theme = kept();
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = shown() === "dark" ? "light" : "dark";
    keep(root.dataset.theme);
    name();
    document.dispatchEvent(new Event("theme"));
  });
  dark.addEventListener("change", () => { name(); document.dispatchEvent(new Event("theme")); });
  name();
})();
