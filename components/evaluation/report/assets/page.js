"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // Theme. Storage throws inside the sandboxed frames that MLflow and Kubeflow show pages in: then it is not kept.
  const theme = byId("theme");
  const kept = {
    get() { try { return localStorage.getItem("theme") || ""; } catch { return ""; } },
    set(value) { try { localStorage.setItem("theme", value); } catch { /* not kept */ } },
  };
  function dress(value) {
    if (value) document.documentElement.dataset.theme = value; else delete document.documentElement.dataset.theme;
  }
  theme.closest("label").hidden = false;
  theme.value = ["light", "dark"].includes(kept.get()) ? kept.get() : "";
  dress(theme.value);
  theme.addEventListener("change", () => { dress(theme.value); kept.set(theme.value); });

  // Inside a viewer's frame without an address of its own, "#clips" would mean a place in the viewer's page.
  if (location.href === "about:srcdoc") {
    document.addEventListener("click", (event) => {
      const link = event.target.closest('a[href^="#"]');
      if (!link) return;
      event.preventDefault();
      const target = byId(link.getAttribute("href").slice(1));
      target.tabIndex = -1;
      target.focus({ preventScroll: true });
      target.scrollIntoView();
    });
  }

  // Paper shows what is folded away on a screen.
  const folded = [...document.querySelectorAll("details")];
  let opened = [];
  addEventListener("beforeprint", () => { opened = folded.filter((one) => !one.open); for (const one of opened) one.open = true; });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });

  // A table wider than the screen says so. Folded ones have no width until they are opened.
  const tables = [...document.querySelectorAll(".scroll")];
  function hint() {
    for (const one of tables) {
      const below = one.nextElementSibling;
      if (below && below.matches(".sideways")) below.hidden = one.scrollWidth <= one.clientWidth + 1;
    }
  }
  const sizes = new ResizeObserver(hint);
  for (const one of tables) sizes.observe(one);
  hint();

  // Clips: one clock. The first clip in view leads while playing; paused, every clip stands at the same frame.
  const clips = [...document.querySelectorAll("video")];
  if (!clips.length) return;
  const fps = Number(document.body.dataset.fps), frames = Number(document.body.dataset.frames);
  const play = byId("play"), slider = byId("frame"), shown = byId("shown"), speed = byId("speed");
  const visible = new Set();
  let playing = false, now = 0;

  const leader = () => clips.find((clip) => visible.has(clip)) || clips[0];
  const time = (frame) => (frame + 0.5) / fps;
  const frameOf = (clip) => Math.min(frames - 1, Math.floor(clip.currentTime * fps + 0.01));
  function apart(one, other) {
    const length = frames / fps, gap = Math.abs(one.currentTime - other.currentTime) % length;
    return Math.min(gap, length - gap);
  }
  function say(frame) {
    now = frame;
    slider.value = String(frame + 1);
    shown.value = `${frame + 1} / ${frames}`;
    slider.setAttribute("aria-valuetext", `frame ${frame + 1} of ${frames}`);
  }
  function go(frame) {
    run(false);
    const wanted = (frame + frames) % frames;
    for (const clip of clips) clip.currentTime = time(wanted);
    say(wanted);
  }
  function run(wanted) {
    const was = playing;
    playing = wanted;
    play.textContent = playing ? "Pause" : "Play";
    for (const clip of clips) {
      if (playing && visible.has(clip)) clip.play().catch(() => {}); else clip.pause();
    }
    if (was && !playing) {
      const frame = frameOf(leader());
      for (const clip of clips) clip.currentTime = time(frame);
      say(frame);
    }
    if (playing && !was) requestAnimationFrame(follow);
  }
  function follow() {
    if (!playing) return;
    const first = leader();
    for (const clip of visible) {
      if (clip === first || clip.seeking || first.seeking) continue;
      if (apart(clip, first) > Math.max(0.15, 1.5 / fps)) clip.currentTime = first.currentTime;
    }
    if (frameOf(first) !== now) say(frameOf(first));
    requestAnimationFrame(follow);
  }

  const watcher = new IntersectionObserver((seen) => {
    for (const one of seen) {
      if (one.isIntersecting) {
        if (playing) one.target.currentTime = leader().currentTime;
        visible.add(one.target);
        if (playing) one.target.play().catch(() => {});
      } else {
        visible.delete(one.target);
        one.target.pause();
      }
    }
  });
  for (const clip of clips) {
    clip.removeAttribute("controls");
    clip.addEventListener("click", () => run(!playing));
    clip.addEventListener("keydown", (event) => {
      const act = { " ": () => run(!playing), Enter: () => run(!playing), ArrowLeft: () => go(now - 1), ArrowRight: () => go(now + 1) }[event.key];
      if (act && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); act(); }
    });
    watcher.observe(clip);
  }
  document.querySelector(".controls").hidden = false;
  play.addEventListener("click", () => run(!playing));
  byId("back").addEventListener("click", () => go(now - 1));
  byId("on").addEventListener("click", () => go(now + 1));
  slider.addEventListener("input", () => go(Number(slider.value) - 1));
  speed.addEventListener("change", () => { for (const clip of clips) clip.playbackRate = Number(speed.value); });
  for (const button of document.querySelectorAll(".larger")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const wide = button.closest("figure").classList.toggle("wide");
      button.setAttribute("aria-pressed", String(wide));
      button.textContent = wide ? "Smaller" : "Larger";
    });
  }
  addEventListener("beforeprint", () => run(false));
  run(!matchMedia("(prefers-reduced-motion: reduce)").matches);
})();
