// A flow is known at some times; here it becomes known at all times, without asking the server.

// The share of the slider that leads from time 0 to the first time after it. The rest is logarithmic.
const FIRST = 0.04;

// Where times lie on the slider, from 0 to 1, and back.
export function makeScale(times) {
  const first = times[1];
  const decades = Math.log(times[times.length - 1] / first);
  return {
    position(time) {
      if (time <= first) return (FIRST * Math.max(time, 0)) / first;
      return FIRST + ((1 - FIRST) * Math.log(time / first)) / decades;
    },
    time(position) {
      if (position <= FIRST) return (first * Math.max(position, 0)) / FIRST;
      return first * Math.exp((decades * Math.min(position - FIRST, 1 - FIRST)) / (1 - FIRST));
    },
    // The powers of ten on the way.
    decades() {
      const powers = [];
      for (let power = Math.ceil(Math.log10(first)); 10 ** power <= times[times.length - 1] * 1.0001; power++)
        powers.push(power);
      return powers;
    },
  };
}

// Between which two of the times a time lies, and how far: linear before the first, then linear in its logarithm.
export function locate(times, time) {
  let low = 0;
  let high = times.length - 1;
  if (time <= times[0]) return { low: 0, share: 0 };
  if (time >= times[high]) return { low: high - 1, share: 1 };
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (times[middle] <= time) low = middle;
    else high = middle;
  }
  const share =
    low === 0 ? time / times[1] : Math.log(time / times[low]) / Math.log(times[low + 1] / times[low]);
  return { low, share };
}

export function numberAt(values, { low, share }) {
  return values[low] + share * (values[low + 1] - values[low]);
}

export function logitsAt(rows, { low, share }) {
  const before = rows[low];
  const after = rows[low + 1];
  return before.map((value, way) => value + share * (after[way] - value));
}

export function softmax(logits) {
  const largest = Math.max(...logits);
  const parts = logits.map((value) => Math.exp(value - largest));
  const sum = parts.reduce((total, part) => total + part, 0);
  return parts.map((part) => part / sum);
}

export function largest(values) {
  return values.reduce((best, value, index) => (value > values[best] ? index : best), 0);
}

// Three digits, as people write them.
export function shortNumber(value) {
  if (value === 0) return "0";
  if (value >= 99950 || value < 0.00095) return value.toExponential(1).replace("e+", "e");
  if (value >= 999.5) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

export function percent(probability) {
  const value = 100 * probability;
  return value > 99.5 && value < 99.995 ? `${value.toFixed(1)} %` : `${value.toFixed(0)} %`;
}
