/** Where a link stands. */
export type LinkState =
  /** Transactions go to the secondary, or are about to. */
  | { readonly at: "running" }
  /** The secondary is told that it is left. */
  | { readonly at: "leaving" }
  /** The secondary has said that it knows, or has closed the connection. */
  | { readonly at: "left"; readonly by: "answer" | "end" }
  /** The secondary is the VM's host. */
  | { readonly at: "handed-over" }
  /** Nothing is done any more; the connection is kept, since its end tells the secondary something. */
  | { readonly at: "quiet" }
  | { readonly at: "closed" };
