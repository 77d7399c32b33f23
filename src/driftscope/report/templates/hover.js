// ---- texts over points and cells
const hoverText = document.getElementById("hover-text");
document.querySelectorAll(".hover > title").forEach((title) => {
  title.parentNode.dataset.text = title.textContent;
  title.remove();
});
document.addEventListener("pointermove", (event) => {
  const mark = event.target.closest && event.target.closest(".hover");
  hoverText.hidden = !mark;
  if (!mark) return;
  hoverText.textContent = mark.dataset.text;
  const box = hoverText.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
  const above = event.clientY - box.height - 10;
  hoverText.style.left = `${Math.max(8, left)}px`;
  hoverText.style.top = `${above > 4 ? above : event.clientY + 18}px`;
});

