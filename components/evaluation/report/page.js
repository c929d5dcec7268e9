"use strict";
(() => {
  const clips = [...document.querySelectorAll("video")];
  if (!clips.length) return;
  const all = document.getElementById("play-all");
  const frame = 1 / Number(document.body.dataset.fps);
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;

  function show() {
    all.textContent = playing ? "Pause all" : "Play all";
    all.setAttribute("aria-pressed", String(playing));
  }
  function playAll(wanted) {
    playing = wanted;
    for (const clip of clips) {
      if (wanted) { clip.play().catch(() => {}); } else { clip.pause(); }
    }
    show();
  }
  document.querySelector(".controls").hidden = false;
  for (const clip of clips) {
    clip.removeAttribute("controls");
    clip.title = "Click, Enter or Space: play or pause";
    const toggle = () => { if (clip.paused) { clip.play().catch(() => {}); } else { clip.pause(); } };
    clip.addEventListener("click", toggle);
    clip.addEventListener("keydown", (event) => {
      if (event.key === " " || event.key === "Enter") { event.preventDefault(); toggle(); }
      if (event.key === "ArrowRight") { event.preventDefault(); clip.pause(); advance(clip); }
    });
  }
  function advance(clip) {
    const end = clip.duration || frame;
    const next = clip.currentTime + frame;
    clip.currentTime = next >= end - frame / 4 ? frame / 2 : next;
  }
  all.addEventListener("click", () => playAll(!playing));
  document.getElementById("step-all").addEventListener("click", () => { playAll(false); clips.forEach(advance); });
  document.getElementById("speed").addEventListener("change", (event) => {
    for (const clip of clips) clip.playbackRate = Number(event.target.value);
  });
  playAll(playing);
})();
