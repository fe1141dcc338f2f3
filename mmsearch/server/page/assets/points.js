// A hundred thousand points on a canvas: WebGL where there is one, else filled squares.

const VERTEX = `
attribute vec2 place;
uniform vec2 middle, stretch;
uniform float size;
void main() {
  gl_Position = vec4((place - middle) * stretch, 0.0, 1.0);
  gl_PointSize = size;
}`;
const FRAGMENT = `
precision mediump float;
uniform vec4 ink;
void main() {
  float edge = 1.0 - smoothstep(0.36, 0.5, distance(gl_PointCoord, vec2(0.5)));
  gl_FragColor = vec4(ink.rgb, 1.0) * ink.a * edge;
}`;

/** A painter of points: `draw({x, y, scale}, size in px, [r, g, b, a])`. x, y: what stands in the middle; scale: px of
 * one unit. */
export function painter(canvas, xs, ys) {
  const gl = canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true });
  return gl ? withWebGL(gl, canvas, xs, ys) : withSquares(canvas, xs, ys);
}

function withWebGL(gl, canvas, xs, ys) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  const places = new Float32Array(xs.length * 2);
  for (let at = 0; at < xs.length; at += 1) {
    places[2 * at] = xs[at];
    places[2 * at + 1] = ys[at];
  }
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, places, gl.STATIC_DRAW);
  const place = gl.getAttribLocation(program, "place");
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, 2, gl.FLOAT, false, 0, 0);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const [middle, stretch, size, ink] = ["middle", "stretch", "size", "ink"].map(uniform);
  return {
    kind: "webgl",
    draw(view, pixels, [red, green, blue, alpha]) {
      const ratio = canvas.width / canvas.clientWidth;
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(middle, view.x, view.y);
      gl.uniform2f(stretch, (2 * view.scale) / canvas.clientWidth, (-2 * view.scale) / canvas.clientHeight);
      gl.uniform1f(size, pixels * ratio);
      gl.uniform4f(ink, red / 255, green / 255, blue / 255, alpha);
      gl.drawArrays(gl.POINTS, 0, xs.length);
    },
  };
}

function withSquares(canvas, xs, ys) {
  const brush = canvas.getContext("2d");
  return {
    kind: "2d",
    draw(view, pixels, [red, green, blue, alpha]) {
      const ratio = canvas.width / canvas.clientWidth;
      brush.setTransform(ratio, 0, 0, ratio, 0, 0);
      const [width, height] = [canvas.clientWidth, canvas.clientHeight];
      brush.clearRect(0, 0, width, height);
      brush.fillStyle = `rgba(${red}, ${green}, ${blue}, ${alpha})`;
      for (let at = 0; at < xs.length; at += 1) {
        const x = (xs[at] - view.x) * view.scale + width / 2;
        const y = (ys[at] - view.y) * view.scale + height / 2;
        if (x > -4 && y > -4 && x < width + 4 && y < height + 4) brush.fillRect(x - pixels / 2, y - pixels / 2, pixels, pixels);
      }
    },
  };
}

/** Which points are near: buckets over the unit square, so that a question looks at a few of them. */
export class Buckets {
  constructor(xs, ys) {
    this.xs = xs;
    this.ys = ys;
    this.side = Math.max(1, Math.min(400, Math.round(Math.sqrt(xs.length))));
    this.cells = new Map();
    for (let at = 0; at < xs.length; at += 1) {
      const key = this.key(this.cell(xs[at]), this.cell(ys[at]));
      const cell = this.cells.get(key);
      if (cell) cell.push(at);
      else this.cells.set(key, [at]);
    }
  }

  cell(value) {
    return Math.max(0, Math.min(this.side - 1, Math.floor(value * this.side)));
  }

  key(column, row) {
    return row * this.side + column;
  }

  /** The points in a rectangle. */
  * inside(left, top, right, bottom) {
    for (let row = this.cell(top); row <= this.cell(bottom); row += 1) {
      for (let column = this.cell(left); column <= this.cell(right); column += 1) {
        for (const at of this.cells.get(this.key(column, row)) ?? []) {
          if (this.xs[at] >= left && this.xs[at] <= right && this.ys[at] >= top && this.ys[at] <= bottom) yield at;
        }
      }
    }
  }

  /** The nearest point within `reach`, or -1. */
  nearest(x, y, reach) {
    let [best, least] = [-1, reach];
    for (const at of this.inside(x - reach, y - reach, x + reach, y + reach)) {
      const away = Math.hypot(this.xs[at] - x, this.ys[at] - y);
      if (away <= least) [best, least] = [at, away];
    }
    return best;
  }
}
