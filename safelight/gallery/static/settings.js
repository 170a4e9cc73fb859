// Settings: check the vault, list its files, say what deletes itself.
import { goDark, notice, send } from "./safelight.js";

for (const button of document.querySelectorAll(".check-vault")) {
  button.addEventListener("click", async () => {
    const place = document.getElementById("verified");
    place.textContent = "Checking…";
    button.disabled = true;
    const answer = await send("/settings/verify", { deep: button.dataset.deep });
    button.disabled = false;
    if (answer.ok) place.innerHTML = await answer.text(); // our own template, every value escaped
    else place.textContent = await answer.text();
  });
}

document.getElementById("retention").addEventListener("submit", async (event) => {
  event.preventDefault();
  const fields = Object.fromEntries(new FormData(event.target));
  const answer = await send("/settings/retention", fields);
  document.getElementById("retention-wrong").textContent = answer.ok ? "" : await answer.text();
  if (answer.ok) notice((await answer.json()).text);
});

document.getElementById("list-files").addEventListener("click", async () => {
  const answer = await fetch("/settings/files");
  if (answer.status === 401) return goDark();
  if (!answer.ok) return notice(await answer.text());
  document.getElementById("files").innerHTML = await answer.text(); // our own template, escaped
  document.getElementById("files-title").focus();
});
