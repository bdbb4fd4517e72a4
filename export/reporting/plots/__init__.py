"""The plots of a report as SVG: matplotlib draws them, and CSS variables of the page color them."""
