/**
 * HTTP at the edge: who left, what goes on, what is cleaned up.
 *
 * @since 0.1.0
 */
export {}
