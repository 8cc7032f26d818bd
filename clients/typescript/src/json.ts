/** JSON that says what it is made of, or fails: `JSON.stringify` would make `null` of `NaN` and
 * `{}` of a `Map` without a word. */

/**
 * A value as JSON. `undefined` is `null`, members that are `undefined` are left out, and what has a
 * `toJSON`, such as a `Date`, is what that gives.
 *
 * Throws `TypeError` for what would be lost.
 */
export function encoded(value: unknown): string {
  const text = JSON.stringify(value === undefined ? null : value, (name, member: unknown) => {
    switch (typeof member) {
      case "number":
        if (!Number.isFinite(member)) throw new TypeError(`${member} (${name}) is no JSON`);
        return member;
      case "function":
      case "symbol":
      case "bigint":
        throw new TypeError(`a ${typeof member} (${name}) is no JSON`);
      case "object":
        if (member instanceof Map || member instanceof Set || ArrayBuffer.isView(member)) {
          throw new TypeError(`a ${member.constructor.name} (${name}) is no JSON`);
        }
        return member;
      default:
        return member;
    }
  }) as string | undefined;
  if (text === undefined) throw new TypeError("it is no JSON");
  return text;
}
