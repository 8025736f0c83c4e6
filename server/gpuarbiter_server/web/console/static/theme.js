// Light or dark, before anything is drawn: what was chosen here last, otherwise what the system says.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem("gpu-arbiter-theme");
    } catch {
      return null;
    }
  };
  const apply = () => {
    document.documentElement.dataset.theme = chosen() ?? (dark.matches ? "dark" : "light");
  };
  dark.addEventListener("change", apply);
  apply();
  globalThis.switchTheme = () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("gpu-arbiter-theme", next);
    } catch {
      // It lasts as long as the page.
    }
    document.documentElement.dataset.theme = next;
  };
})();
