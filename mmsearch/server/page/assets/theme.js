// Chosen light or dark, before anything is painted. Without a choice, the system's.
{
  const chosen = localStorage.getItem("mmsearch-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
