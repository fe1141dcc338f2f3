// How numbers, dates and places are written for people.

const COUNT = new Intl.NumberFormat("en-GB");
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });
const MONTH = new Intl.DateTimeFormat("en-GB", { month: "short", year: "numeric" });

export const count = (number) => COUNT.format(number);

/** 1 picture, 2 pictures */
export const several = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

export function percent(probability) {
  const shown = Math.round(probability * 100);
  if (shown === 0 && probability > 0) return "<1%";
  if (shown === 100 && probability < 1) return ">99%";
  return `${shown}%`;
}

// Local times without a zone: `new Date` would shift a bare date to UTC.
const local = (iso) => new Date(iso.length === 10 ? `${iso}T00:00` : iso);
export const day = (iso) => DAY.format(local(iso));
export const moment = (iso) => MOMENT.format(local(iso));
export const monthName = (month) => MONTH.format(new Date(`${month}-01T00:00`));

export function bytes(size) {
  if (!size) return "0 B";
  const step = Math.min(4, Math.floor(Math.log10(size) / 3));
  const value = size / 1000 ** step;
  return `${value < 10 && step ? value.toFixed(1) : Math.round(value)} ${["B", "kB", "MB", "GB", "TB"][step]}`;
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  return `${Math.round(seconds / 60)} min`;
}

/** `2024-05-01T00:00:00` and the end that is left out -> "May 2024", "1 May 2024 – 3 Jun 2024". */
export function period(after, before) {
  const from = after && local(after);
  const until = before && new Date(local(before) - 1);
  if (from && until) {
    const months = from.getDate() === 1 && local(before).getDate() === 1;
    const name = (date) => (months ? MONTH : DAY).format(date);
    const years = months && from.getMonth() === 0 && until.getMonth() === 11;
    if (years) return from.getFullYear() === until.getFullYear() ? `${from.getFullYear()}` : `${from.getFullYear()} – ${until.getFullYear()}`;
    return name(from) === name(until) ? name(from) : `${name(from)} – ${name(until)}`;
  }
  return from ? `since ${DAY.format(from)}` : `until ${DAY.format(until)}`;
}

export function coordinates(latitude, longitude) {
  const side = (value, positive, negative) => `${Math.abs(value).toFixed(4)}° ${value < 0 ? negative : positive}`;
  return `${side(latitude, "N", "S")}, ${side(longitude, "E", "W")}`;
}
