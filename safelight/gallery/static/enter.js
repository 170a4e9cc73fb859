// Give the token behind the # of the address for a session, once, and forget the address.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
history.replaceState(null, "", location.pathname);
if (token) {
  const answer = await fetch("/session", { method: "POST", body: new URLSearchParams({ token }) });
  if (answer.ok) {
    location.replace("/");
  } else {
    document.getElementById("enter-text").textContent =
      "This address was used already. The terminal shows the next one.";
  }
}
