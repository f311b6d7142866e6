// Sounds as waves that can be seen, and clicked to hear from there.

let audio = null;

export function waves(part) {
  for (const canvas of part.querySelectorAll?.("canvas.wave:not([data-drawn])") ?? []) {
    canvas.dataset.drawn = "waiting";
    seen(canvas, () => load(canvas));
  }
}

function seen(element, then) {
  new IntersectionObserver((entries, watch) => {
    if (!entries.some((e) => e.isIntersecting)) return;
    watch.disconnect();
    then();
  }).observe(element);
}

async function load(canvas) {
  const player = canvas.parentElement.querySelector("audio");
  try {
    const content = await (await fetch(canvas.dataset.src)).arrayBuffer();
    audio ??= new OfflineAudioContext(1, 1, 44100);
    const samples = (await audio.decodeAudioData(content)).getChannelData(0);
    const box = canvas.getBoundingClientRect();
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(box.width * scale));
    canvas.height = Math.max(1, Math.round(box.height * scale));
    const peaks = peaksOf(samples, Math.floor(canvas.width / (3 * scale)));
    const draw = () => paint(canvas, peaks, scale, player && player.duration ? player.currentTime / player.duration : 0);
    draw();
    canvas.dataset.drawn = "true";
    player?.addEventListener("timeupdate", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    canvas.addEventListener("click", (event) => {
      const at = (event.clientX - canvas.getBoundingClientRect().left) / canvas.clientWidth;
      player.currentTime = at * (player.duration || samples.length / 44100);
      player.play();
    });
  } catch {
    canvas.dataset.drawn = "false"; // the player alone is enough
  }
}

function peaksOf(samples, count) {
  const peaks = new Float32Array(Math.max(1, count));
  let most = 1e-3;
  for (let i = 0; i < peaks.length; i++) {
    const end = Math.ceil(((i + 1) * samples.length) / peaks.length);
    for (let k = Math.floor((i * samples.length) / peaks.length); k < end; k++) peaks[i] = Math.max(peaks[i], Math.abs(samples[k]));
    most = Math.max(most, peaks[i]);
  }
  return peaks.map((p) => p / most);
}

function paint(canvas, peaks, scale, played) {
  const style = getComputedStyle(canvas);
  const context = canvas.getContext("2d");
  const middle = canvas.height / 2;
  context.clearRect(0, 0, canvas.width, canvas.height);
  peaks.forEach((peak, i) => {
    context.fillStyle = i / peaks.length < played ? style.getPropertyValue("--accent") : style.getPropertyValue("--line-strong");
    const height = Math.max(2 * scale, peak * canvas.height * 0.9);
    context.beginPath();
    context.roundRect(i * 3 * scale, middle - height / 2, 2 * scale, height, scale);
    context.fill();
  });
}
