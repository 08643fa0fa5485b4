// Keeps all files in the browser, by the service worker sw.js, so that the page works without a network.

/** Store the files and return whether that worked; `report` gets bytes so far and in all, `renewed` is for updates. */
export async function store(report, renewed) {
  const workers = navigator.serviceWorker;
  if (!workers) return false; // an address without https, or a private window
  workers.addEventListener("message", ({ data }) => report(data.stored, data.total));
  try {
    const registration = await workers.register("sw.js");
    const { active, waiting, installing } = registration;
    if (!active) await reaches(waiting ?? installing, "activated");
    else if (waiting) renewed();
    else registration.addEventListener("updatefound", () => reaches(registration.installing, "installed").then(renewed));
    return true;
  } catch {
    return false; // no space is left, or a file is missing, which the loader of the model reports
  }
}

/** Wait until a service worker reaches a state. */
function reaches(worker, state) {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (worker.state === state) resolve();
      if (worker.state === "redundant") reject(new Error("the files cannot be stored"));
    };
    worker.addEventListener("statechange", look);
    look();
  });
}
