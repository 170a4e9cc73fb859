// Albums: what is clicked becomes the search of the grid; searches are kept and forgotten.
import { notice, send } from "./safelight.js";

async function search(query) {
  const answer = await send("/api/search", { query });
  if (answer.ok) location.href = "/";
  else notice(await answer.text());
}

for (const button of document.querySelectorAll("[data-query]")) {
  button.addEventListener("click", () => search(button.dataset.query));
}
for (const button of document.querySelectorAll(".forget")) {
  button.addEventListener("click", async () => {
    const answer = await send("/searches/remove", { id: button.dataset.id });
    if (answer.ok) location.reload();
  });
}
document.getElementById("keep").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { query, name } = event.target.elements;
  const answer = await send("/searches", { query: query.value, name: name.value });
  if (answer.ok) location.reload();
  else document.getElementById("keep-wrong").textContent = await answer.text();
});
