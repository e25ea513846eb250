// Where the numbers of clusters stand on the map: beside a point of each, so that a cluster of one point stays visible.

const HIGH = 16, WIDE = 9; // a number's line, and each of its digits, in CSS pixels
const REACHES = [14, 24, 36, 50, 66], DIRECTIONS = [[0, -1], [1, 0], [0, 1], [-1, 0], [0.8, -0.8], [0.8, 0.8], [-0.8, 0.8], [-0.8, -0.8]];

export function middlesOf(points, groups) { // of each group from 0: the place in `points` of the one that is nearest to their mean
  const sums = new Map(), middles = new Map();
  for (let point = 0; point < groups.length; point += 1) {
    if (groups[point] < 0) continue;
    const sum = sums.get(groups[point]) ?? [0, 0, 0];
    sum[0] += points[2 * point]; sum[1] += points[2 * point + 1]; sum[2] += 1;
    sums.set(groups[point], sum);
  }
  for (let point = 0; point < groups.length; point += 1) {
    if (groups[point] < 0) continue;
    const [x, y, count] = sums.get(groups[point]);
    const distance = (points[2 * point] - x / count) ** 2 + (points[2 * point + 1] - y / count) ** 2;
    if (!(middles.get(groups[point])?.distance <= distance)) middles.set(groups[point], { point, distance });
  }
  return new Map([...middles].sort(([one], [other]) => one - other).map(([group, { point }]) => [group, point]));
}

export function placesBeside(marks, width, height) { // marks: [{ name, x, y }]; the middles of the names, over no mark and no other name
  const taken = marks.map(({ x, y }) => ({ x, y, across: 4, down: 4 }));
  return marks.map(({ name, x, y }) => {
    const across = String(name).length * WIDE / 2 + 2, down = HIGH / 2;
    const places = REACHES.flatMap((reach) => DIRECTIONS.map(([right, below]) => ({ x: x + right * (reach + across - down), y: y + below * reach, across, down })));
    const isFree = (place) => place.x >= across && place.x <= width - across && place.y >= down && place.y <= height - down
      && !taken.some((other) => Math.abs(other.x - place.x) < other.across + across && Math.abs(other.y - place.y) < other.down + down);
    const found = places.find(isFree) ?? places[0];
    taken.push(found);
    return found;
  });
}
