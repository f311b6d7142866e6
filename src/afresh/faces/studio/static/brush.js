// A picture on which one paints where it may change. The mask is sent as a PNG, white where it was painted.

const SHOWN = 512; // pixels of the canvas: small pictures are painted on large

export function brush(canvas, create) {
  const picture = new Image();
  const size = document.getElementById("brush");
  const context = canvas.getContext("2d");
  const mask = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  let painted = false, down = false, last = null, cursor = null;

  picture.addEventListener("load", () => {
    const scale = Math.max(1, Math.ceil(SHOWN / Math.max(picture.width, picture.height)));
    canvas.width = mask.canvas.width = picture.width * scale;
    canvas.height = mask.canvas.height = picture.height * scale;
    canvas.dataset.ready = "true";
    draw();
  });
  const { image } = canvas.closest("[data-image]").dataset;
  if (image) picture.src = image;
  document.getElementById("upload")?.addEventListener("change", (event) => {
    const [file] = event.target.files;
    URL.revokeObjectURL(picture.src);
    wipe();
    document.getElementById("painting").hidden = !file;
    if (file) picture.src = URL.createObjectURL(file);
  });
  picture.addEventListener("error", () => { document.getElementById("painting").hidden = true; }); // not shown by browsers

  const radius = () => (Number(size.value) / 200) * canvas.width;

  function draw() {
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = 0.6;
    context.drawImage(tinted(), 0, 0);
    context.globalAlpha = 1;
    if (cursor) {
      context.beginPath();
      context.arc(...cursor, radius(), 0, 7);
      context.lineWidth = 3;
      context.strokeStyle = "#fff";
      context.stroke();
      context.lineWidth = 1;
      context.strokeStyle = "#000";
      context.stroke();
    }
  }

  function tinted() {
    const layer = document.createElement("canvas");
    layer.width = canvas.width;
    layer.height = canvas.height;
    const on = layer.getContext("2d");
    on.drawImage(mask.canvas, 0, 0);
    on.globalCompositeOperation = "source-in";
    on.fillStyle = "#e4572e";
    on.fillRect(0, 0, layer.width, layer.height);
    return layer;
  }

  function stroke(from, to) {
    mask.strokeStyle = mask.fillStyle = "#fff";
    mask.lineCap = "round";
    mask.lineWidth = 2 * radius();
    mask.beginPath();
    mask.moveTo(...from);
    mask.lineTo(to[0] + 0.01, to[1]);
    mask.stroke();
    painted = true;
    draw();
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  }

  canvas.addEventListener("pointerdown", (event) => {
    down = true;
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    cursor = place(event);
    if (down) {
      stroke(last, cursor);
      last = cursor;
    } else draw();
  });
  canvas.addEventListener("pointerup", () => { down = false; });
  canvas.addEventListener("pointerleave", () => { cursor = null; draw(); });
  canvas.addEventListener("keydown", (event) => {
    const step = canvas.width / 16;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    cursor ??= [canvas.width / 2, canvas.height / 2];
    if (event.key in moves) {
      const [x, y] = moves[event.key];
      cursor = [Math.min(canvas.width, Math.max(0, cursor[0] + x)), Math.min(canvas.height, Math.max(0, cursor[1] + y))];
      draw();
    } else if (event.key === " ") stroke(cursor, cursor);
    else return;
    event.preventDefault();
  });
  document.getElementById("clear").addEventListener("click", () => {
    wipe();
    draw();
  });

  function wipe() {
    mask.clearRect(0, 0, mask.canvas.width, mask.canvas.height);
    painted = false;
  }

  create.addEventListener("htmx:configRequest", (event) => {
    if (event.target === create && painted) event.detail.formData.set("mask", png(), "mask.png");
  });

  // The mask in the size of the picture, black where nothing was painted.
  function png() {
    const small = document.createElement("canvas");
    small.width = picture.width;
    small.height = picture.height;
    const on = small.getContext("2d");
    on.fillRect(0, 0, small.width, small.height);
    on.drawImage(mask.canvas, 0, 0, small.width, small.height);
    const text = atob(small.toDataURL("image/png").split(",")[1]);
    return new Blob([Uint8Array.from(text, (c) => c.charCodeAt(0))], { type: "image/png" });
  }
}
