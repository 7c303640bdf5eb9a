// The same classes for `import` and `require`, so that `instanceof` holds whichever a program uses.
import module from "./index.cjs";

export const { Denied, Gate, NotAllowed, Undecided, check, gated, socketPath } = module;
