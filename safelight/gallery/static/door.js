// While it is locked: another page of ours may unlock it, and this one then goes on.
const channel = new BroadcastChannel("safelight");
channel.onmessage = (message) => {
  if (message.data === "unlocked") location.reload();
};
document.addEventListener("htmx:after:request", (event) => {
  if (event.detail?.ctx?.response?.raw?.status === 204) channel.postMessage("unlocked");
});
