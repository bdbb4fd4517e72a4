"""The boundary: files from outside are opened here, checked, and refused in one line; code behind it may trust them."""
