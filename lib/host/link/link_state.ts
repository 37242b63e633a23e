/** The states of a link. */
export type LinkState =
  /** Transactions go to the secondary, or are about to. */
  | { readonly at: "running" }
  /** The secondary is being told that the sender leaves (LEAVE). */
  | { readonly at: "leaving" }
  /** The secondary has confirmed that, or has closed the connection. */
  | { readonly at: "left"; readonly by: "answer" | "end" }
  /** The secondary is the VM's host. */
  | { readonly at: "handed-over" }
  /**
   * The link does nothing any more; the connection is kept, since its end would tell the secondary
   * something.
   */
  | { readonly at: "quiet" }
  | { readonly at: "closed" };
