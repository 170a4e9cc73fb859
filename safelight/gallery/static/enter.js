// Give the token behind the # of the address for a session, once, and forget the address.
async function enter() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  const answer = await fetch("/session", { method: "POST", body: new URLSearchParams({ token }) });
  if (answer.ok) {
    location.replace("/");
  } else {
    document.getElementById("enter-text").textContent =
      "This address was used already. The terminal shows the next one.";
  }
}
addEventListener("hashchange", enter); // the address was put into this page's own line
await enter();
